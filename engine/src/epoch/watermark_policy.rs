//! The watermark of an operator or a query with several inputs.

/// How the watermarks of several inputs are combined. Idle inputs are ignored. When all inputs are
/// idle, the largest watermark counts under either policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatermarkPolicy {
    /// The smallest watermark of the inputs counts, so a fast input does not make rows of a slow
    /// input late.
    #[default]
    Min,
    /// The largest watermark of the inputs counts, so rows of slower inputs may be late.
    Max,
}
