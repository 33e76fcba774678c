//! Recursion as deep as the input: the stack is extended when little of it is free.

/// The stack in bytes that must be free for the next levels of a recursion.
const LEVEL_STACK: usize = 128 << 10;
/// The bytes by which the stack is extended.
const MORE_STACK: usize = 4 << 20;

/// Runs one level of a recursion with enough stack. The threads of callers may have a small one.
pub(in crate::table) fn on_stack<T>(level: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(LEVEL_STACK, MORE_STACK, level)
}
