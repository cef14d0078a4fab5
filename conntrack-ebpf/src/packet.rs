//! Reads the bytes of a packet.

/// A number, or several, as they lie in memory.
///
/// Packets are read in words and not in bytes: a program has one instruction for each
/// word, and its verifier requires what is copied to the stack to be aligned there.
pub trait Word: Copy + Default + sealed::Plain {
    /// Decodes a word from as many bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;

    /// Loads the word at this address of a packet, aligned or not.
    ///
    /// # Safety
    /// The verifier refuses a program that has not first compared the address with the
    /// packet's end.
    #[cfg(target_arch = "bpf")]
    #[expect(unsafe_code, reason = "its callers answer for the address")]
    unsafe fn load(address: usize) -> Self;
}

/// Emits one load instruction. The compiler itself would load byte by byte and combine
/// the bytes, a third of the cost of a packet without a rule: it knows that packets
/// aren't aligned, but not that the verifier objects only where the processor does
/// (`CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`, `check_ptr_alignment`,
/// kernel/bpf/verifier.c).
#[cfg(target_arch = "bpf")]
macro_rules! load {
    ($type:ty, $size:literal, $address:ident + $offset:literal) => {{
        let word: $type;
        // SAFETY: it only reads, and the caller answers for the address.
        unsafe {
            core::arch::asm!(
                concat!("{0} = *(", $size, " *)({1} + ", $offset, ")"),
                out(reg) word,
                in(reg) $address,
                options(pure, readonly, nostack),
            );
        }
        word
    }};
}

mod sealed {
    /// A type for which any bytes are a value.
    pub trait Plain {}
}

macro_rules! number_is_word {
    ($($number:ty: $size:literal),*) => {$(
        impl sealed::Plain for $number {}
        impl Word for $number {
            #[inline]
            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_ne_bytes)
            }

            #[cfg(target_arch = "bpf")]
            #[expect(unsafe_code, reason = "of the trait")]
            #[inline(always)]
            unsafe fn load(address: usize) -> Self {
                load!($number, $size, address + "0")
            }
        }
    )*};
}
// There is no u8: the verifier takes the read of a single byte at an unknown offset
// for one that wasn't checked (`find_good_pkt_pointers`, kernel/bpf/verifier.c).
number_is_word!(u16: "u16", u32: "u32", u64: "u64");

impl<const N: usize> sealed::Plain for [u64; N] {}
macro_rules! words_are_word {
    ($($count:literal: $($offset:literal),*;)*) => {$(
        impl Word for [u64; $count] {
            #[inline]
            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let (words, rest) = bytes.as_chunks();
                let words: &[[u8; 8]; $count] = words.try_into().ok()?;
                rest.is_empty().then(|| words.map(u64::from_ne_bytes))
            }

            #[cfg(target_arch = "bpf")]
            #[expect(unsafe_code, reason = "of the trait")]
            #[inline(always)]
            unsafe fn load(address: usize) -> Self {
                [$(load!(u64, "u64", address + $offset)),*]
            }
        }
    )*};
}
words_are_word! {
    2: "0", "8";
    3: "0", "8", "16";
    4: "0", "8", "16", "24";
}

/// Stores words at this address of a packet's metadata, aligned or not.
///
/// # Safety
/// The same as for [`Word::load`].
#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "its callers answer for the address")]
#[inline(always)]
pub unsafe fn store([a, b, c]: [u64; 3], address: usize) {
    // SAFETY: it only writes, and the caller answers for the address.
    unsafe {
        core::arch::asm!(
            "*(u64 *)({0} + 0) = {1}",
            "*(u64 *)({0} + 8) = {2}",
            "*(u64 *)({0} + 16) = {3}",
            in(reg) address,
            in(reg) a,
            in(reg) b,
            in(reg) c,
            options(nostack),
        );
    }
}

/// A packet that is copied from, with each read checked against its length.
pub trait Packet {
    /// Reads the word at `offset`, as it lies in memory. Returns `None` if the packet
    /// ends within it.
    fn read<T: Word>(&self, offset: usize) -> Option<T>;

    /// Reads like `read`, but returns 0 where the packet ends too early, for a program
    /// that decides nothing by that. For the `None` of an `Option` the compiler may
    /// use a register that was never written, which the verifier refuses.
    fn read_or_zero<T: Word>(&self, offset: usize) -> T;

    /// Reads like `read`, for rare packets and any offset. In a program it is always a
    /// call, which is slower, but gives the verifier fewer paths to follow. Also
    /// returns `None` where another program path handles such a packet.
    fn copy<T: Word>(&self, offset: usize) -> Option<T>;

    /// Returns the same value, of at most 17 bits, into which a program mixes
    /// something of the packet and takes it out again. The verifier no longer sees
    /// what the value may be, and so doesn't follow all later code for each value,
    /// such as each length of the headers in front of an offset.
    fn forget(&self, value: usize, _: u32) -> usize {
        value & BLURRED
    }

    /// Returns whether the packet has at least `length` bytes.
    fn has(&self, length: usize) -> bool;

    /// Returns whether it may be longer than the length field of the IP header at
    /// `network` can say: many TCP segments, merged into one packet (BIG TCP).
    fn is_merged(&self, network: usize) -> bool;
}

/// The limit of offsets that a program reads directly. The verifier accepts no offset
/// that may be beyond 65,535 (`MAX_PACKET_OFF`, kernel/bpf/verifier.c).
pub const NEAR: usize = 1 << 12;

/// Returns the offset, if a program reads so far into a packet directly.
///
/// The compiler knows offsets as sums, and would compare a part of the sum with a part
/// of the limit. Before Linux 6.10 the verifier doesn't see what that says of the sum
/// (`sync_linked_regs`, kernel/bpf/verifier.c), and refuses the read.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn bounded(offset: usize) -> Option<usize> {
    let offset = opaque(offset);
    (offset <= NEAR).then_some(offset)
}

/// Returns the same value, of which the compiler no longer knows anything.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn opaque(mut value: usize) -> usize {
    // SAFETY: no instruction at all; the value stays in its register.
    #[expect(unsafe_code, reason = "nothing else is opaque and costs nothing")]
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) value, options(pure, nomem, nostack));
    }
    value
}

/// Reads a word at this distance from `start` directly. Returns `None` if it goes
/// beyond `end`. The verifier has to see that the distance is small.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn direct<T: Word>(start: usize, end: usize, offset: usize) -> Option<T> {
    let start = start + offset;
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: the comparison above is the one by which the verifier allows this read:
    // all of it lies before `end`.
    #[expect(unsafe_code, reason = "direct packet access")]
    let word = unsafe { T::load(start) };
    Some(word)
}

/// The bits that remain of a [forgotten](Packet::forget) value: enough for the longest
/// packet whose header gives its length, behind 40 bytes.
const BLURRED: usize = (1 << 17) - 1;

/// Makes the verifier forget a value, as described at [`Packet::forget`].
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn forget(mut value: usize, by: u32) -> usize {
    // SAFETY: the second instruction undoes the first. By the third the verifier has
    // the same bounds for the value however often this is done.
    #[expect(unsafe_code, reason = "the compiler would leave out all of it")]
    unsafe {
        core::arch::asm!(
            "{0} ^= {1}",
            "{0} ^= {1}",
            "{0} &= {2}",
            inout(reg) value,
            in(reg) u64::from(by),
            const BLURRED,
            options(pure, nomem, nostack),
        );
    }
    value
}

/// The length of the shortest IP packet that a field of 16 bits can't express, in
/// bytes.
pub const TOO_LONG: usize = 1 << 16;

impl Packet for [u8] {
    #[inline]
    fn read<T: Word>(&self, offset: usize) -> Option<T> {
        let end = offset.checked_add(size_of::<T>())?;
        T::from_bytes(self.get(offset..end)?)
    }

    #[inline]
    fn read_or_zero<T: Word>(&self, offset: usize) -> T {
        self.read(offset).unwrap_or_default()
    }

    #[inline]
    fn copy<T: Word>(&self, offset: usize) -> Option<T> {
        self.read(offset)
    }

    #[inline]
    fn has(&self, length: usize) -> bool {
        length <= self.len()
    }

    #[inline]
    fn is_merged(&self, network: usize) -> bool {
        self.has(network + TOO_LONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_ends_where_the_packet_ends() {
        let packet: &[u8] = &[1, 2, 3];
        assert_eq!(packet.read::<u16>(1).map(u16::to_ne_bytes), Some([2, 3]));
        assert_eq!(packet.read::<u16>(2), None);
        assert_eq!(packet.read::<u16>(usize::MAX), None);
        assert_eq!(packet.read::<u64>(0), None);
        assert!(packet.has(3));
        assert!(!packet.has(4));
    }

    #[test]
    fn words_are_read_in_the_order_of_memory() {
        let packet: Vec<u8> = (0..40).collect();
        let words = packet.read::<[u64; 4]>(3).unwrap();
        assert_eq!(words.map(u64::to_ne_bytes).as_flattened(), &packet[3..35]);
        assert_eq!(packet.read::<[u64; 4]>(9), None);
        let words = packet.read::<[u64; 2]>(24).unwrap();
        assert_eq!(words.map(u64::to_ne_bytes).as_flattened(), &packet[24..]);
        assert_eq!(packet.read::<[u64; 2]>(25), None);
    }
}
