//! The result of two matching records, or of one record without a match.

use std::marker::PhantomData;

/// Makes the results of a join.
pub(in crate::stream) trait Pairing<L, R>: Clone + Send + 'static {
    type Output: Send + 'static;
    /// The name of the join.
    const NAME: &'static str;
    /// For each side, whether records without a match are emitted.
    const PRESERVES: [bool; 2];
    /// Whether a left record is removed with its first match, because further matches cannot change
    /// its result.
    const REMOVES_MATCHED: bool = false;
    /// The result of a match. `None` if the join emits only records without a match.
    fn pair(&mut self, left: &L, right: &R) -> Option<Self::Output>;
    /// The result of a left record without a match. `None` if the join does not preserve left
    /// records.
    fn only_left(&mut self, left: &L) -> Option<Self::Output>;
    /// The result of a right record without a match. `None` if the join does not preserve right
    /// records.
    fn only_right(&mut self, right: &R) -> Option<Self::Output>;
}

/// A result function with its result type.
macro_rules! pairing_of {
    ($name:ident) => {
        pub(in crate::stream) struct $name<F, U>(pub F, pub PhantomData<fn() -> U>);

        impl<F: Clone, U> Clone for $name<F, U> {
            fn clone(&self) -> Self {
                Self(self.0.clone(), PhantomData)
            }
        }
    };
}

macro_rules! pairings {
    ($($name:ident $text:literal [$of_left:literal, $of_right:literal] ($left:ty, $right:ty):
        |$f:ident, $l:ident, $r:ident| $pair:expr, $only_left:expr, $only_right:expr;)*) => {$(
        pairing_of! { $name }

        impl<L, R, U, F> Pairing<L, R> for $name<F, U>
        where
            L: 'static,
            R: 'static,
            U: Send + 'static,
            F: FnMut($left, $right) -> U + Clone + Send + 'static,
        {
            type Output = U;
            const NAME: &'static str = $text;
            const PRESERVES: [bool; 2] = [$of_left, $of_right];
            #[inline]
            fn pair(&mut self, $l: &L, $r: &R) -> Option<U> {
                let $f = &mut self.0;
                Some($pair)
            }
            fn only_left(&mut self, $l: &L) -> Option<U> {
                let ($f, _) = (&mut self.0, $l);
                $only_left
            }
            fn only_right(&mut self, $r: &R) -> Option<U> {
                let ($f, _) = (&mut self.0, $r);
                $only_right
            }
        }
    )*};
}

pairings! {
    Inner "inner" [false, false] (&L, &R): |f, l, r| f(l, r), { let _ = f; None }, { let _ = f; None };
    LeftOuter "left outer" [true, false] (&L, Option<&R>):
        |f, l, r| f(l, Some(r)), Some(f(l, None)), { let _ = f; None };
    RightOuter "right outer" [false, true] (Option<&L>, &R):
        |f, l, r| f(Some(l), r), { let _ = f; None }, Some(f(None, r));
    FullOuter "full outer" [true, true] (Option<&L>, Option<&R>):
        |f, l, r| f(Some(l), Some(r)), Some(f(Some(l), None)), Some(f(None, Some(r)));
}

/// Joins that test whether a left record has a match. The result has the left record only.
macro_rules! existence_pairings {
    ($($name:ident $text:literal: with a match $matched:literal;)*) => {$(
        pairing_of! { $name }

        impl<L, R, U, F> Pairing<L, R> for $name<F, U>
        where
            L: 'static,
            R: 'static,
            U: Send + 'static,
            F: FnMut(&L) -> U + Clone + Send + 'static,
        {
            type Output = U;
            const NAME: &'static str = $text;
            const PRESERVES: [bool; 2] = [!$matched, false];
            const REMOVES_MATCHED: bool = true;
            #[inline]
            fn pair(&mut self, left: &L, _: &R) -> Option<U> {
                $matched.then(|| (self.0)(left))
            }
            fn only_left(&mut self, left: &L) -> Option<U> {
                (!$matched).then(|| (self.0)(left))
            }
            fn only_right(&mut self, _: &R) -> Option<U> {
                None
            }
        }
    )*};
}

existence_pairings! {
    LeftSemi "left semi": with a match true;
    LeftAnti "left anti": with a match false;
}
