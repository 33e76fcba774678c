//! The bytes of a key.

/// The longest key that is stored inline, in bytes.
const INLINE: usize = 30;

/// The bytes of a key: inline if it is short.
pub(crate) enum OwnedKey {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl Default for OwnedKey {
    fn default() -> Self {
        Self::Inline { len: 0, bytes: [0; INLINE] }
    }
}

impl OwnedKey {
    #[inline]
    pub fn new(key: &[u8]) -> Self {
        if key.len() > INLINE {
            return Self::Heap(key.into());
        }
        let mut bytes = [0; INLINE];
        bytes[..key.len()].copy_from_slice(key);
        Self::Inline { len: key.len() as u8, bytes }
    }

    /// The heap memory of the key, in bytes; 0 if the key is stored inline.
    #[inline]
    pub fn heap(&self) -> u64 {
        match self {
            Self::Inline { .. } => 0,
            Self::Heap(bytes) => bytes.len() as u64,
        }
    }
}

impl std::ops::Deref for OwnedKey {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_length_are_read_back() {
        for length in 0..100u8 {
            let bytes: Vec<u8> = (0..length).collect();
            let key = OwnedKey::new(&bytes);
            assert_eq!(&*key, &bytes[..]);
            assert_eq!(key.heap(), if length > 30 { length.into() } else { 0 });
        }
        assert_eq!(size_of::<OwnedKey>(), 32);
    }
}
