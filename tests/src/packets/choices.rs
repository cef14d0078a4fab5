//! Choices out of a string of bytes.
//!
//! Whoever makes the bytes decides how they are found: a random generator makes
//! many at once, proptest can shrink them, and the same ones give the same choice
//! again. Where they end, the first of all choices is taken.

/// What is left of the bytes.
#[derive(Clone, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Choices out of these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Any number of 16 bits.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u16) -> u16 {
        if bound <= 256 {
            u16::from(self.byte()) % bound
        } else {
            self.word() % bound
        }
    }

    /// True once in so many times; where the choices have ended, false.
    pub fn once_in(&mut self, times: u16) -> bool {
        self.below(times) == times - 1
    }

    /// One of these; the first where the choices have ended.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.below(u16::try_from(of.len()).unwrap_or(u16::MAX)))]
    }

    /// As many bytes of one value.
    pub fn fill(&mut self, length: usize) -> Vec<u8> {
        vec![self.byte(); length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_the_same_choices() {
        let mut choices = Choices::new(&[7, 1, 2, 255]);
        assert_eq!(choices.byte(), 7);
        assert_eq!(choices.word(), 0x0102);
        assert!(choices.clone().once_in(2));
        assert_eq!(choices.one_of(&['a', 'b', 'c', 'd']), 'd');
        // None are left.
        assert_eq!(choices.one_of(&['a', 'b']), 'a');
        assert!(!choices.once_in(2));
        assert_eq!(choices.below(1000), 0);
    }
}
