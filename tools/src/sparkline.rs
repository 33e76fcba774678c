//! A chart in one line of text.

/// Draws a bar for each value, as high as the value is compared with the largest one. A value of 0
/// has no bar. Returns the line and the largest value.
pub(crate) fn sparkline(values: &[u64]) -> (String, u64) {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let peak = values.iter().copied().max().unwrap_or(0);
    let bar = |value: &u64| match value {
        0 => ' ',
        value => BARS[((u128::from(*value) * 8).div_ceil(u128::from(peak)) as usize - 1).min(7)],
    };
    (values.iter().map(bar).collect(), peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_has_the_highest_bar() {
        assert_eq!(sparkline(&[1, 0, 8, 5]), ("▁ █▅".to_string(), 8));
        assert_eq!(sparkline(&[u64::MAX, 1]), ("█▁".to_string(), u64::MAX));
        assert_eq!(sparkline(&[0, 0]), ("  ".to_string(), 0));
        assert_eq!(sparkline(&[]), (String::new(), 0));
    }
}
