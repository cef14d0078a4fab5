//! Reads the bytes of a packet.

/// A number, or several, as they lie in memory.
///
/// Packets are read in such, and not in bytes: a program has one instruction for
/// each, and its verifier wants what is copied to the stack to be aligned there.
pub trait Word: Copy + Default + sealed::Plain {
    /// From as many bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;

    /// What lies at this address of a packet, aligned or not.
    ///
    /// # Safety
    /// The verifier refuses a program that has not compared the address with the
    /// packet's end before.
    #[cfg(target_arch = "bpf")]
    #[expect(unsafe_code, reason = "its callers answer for the address")]
    unsafe fn load(address: usize) -> Self;
}

/// One load instruction. The compiler itself would load byte by byte and put them
/// together, a third of what a packet without a rule costs: it knows that packets
/// aren't aligned, and not that the verifier minds only where the processor does
/// (`CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`, `check_ptr_alignment`,
/// kernel/bpf/verifier.c).
#[cfg(target_arch = "bpf")]
macro_rules! load {
    ($type:ty, $size:literal, $address:ident + $offset:literal) => {{
        let word: $type;
        // SAFETY: it reads, and where it may is for the caller to say.
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
    /// What any bytes are a value of.
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
// No u8: the verifier takes a single byte's read at an offset that it doesn't
// know for one that wasn't checked (`find_good_pkt_pointers`, kernel/bpf/verifier.c).
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

/// Puts words to this address of a packet's metadata, aligned or not.
///
/// # Safety
/// As for [`Word::load`].
#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "its callers answer for the address")]
#[inline(always)]
pub unsafe fn store([a, b, c]: [u64; 3], address: usize) {
    // SAFETY: it writes, and where it may is for the caller to say.
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

/// A packet that is copied from, each read checked against its length.
pub trait Packet {
    /// What is at `offset`, as it lies there; none if the packet ends before its
    /// end.
    fn read<T: Word>(&self, offset: usize) -> Option<T>;

    /// The same, or 0 where the packet ends before: for a program that decides
    /// nothing by whether it does. Of the none of an `Option` the compiler may
    /// make a register that nothing was written to, which the verifier refuses.
    fn read_or_zero<T: Word>(&self, offset: usize) -> T;

    /// Like `read`, for what is rare and where the offset is anything: in a program
    /// always a call, which is slower, and for the verifier has fewer ways to go on.
    /// None also where somebody else goes on with such a packet.
    fn copy<T: Word>(&self, offset: usize) -> Option<T>;

    /// The same value, of 17 bits at most, into which a program mixes something of the
    /// packet and takes it out again. Its verifier sees no more what the value may be,
    /// and so doesn't go through all that follows for each: for each length of what is
    /// in front of an offset.
    fn forget(&self, value: usize, _: u32) -> usize {
        value & BLURRED
    }

    /// Whether the packet has at least `length` bytes.
    fn has(&self, length: usize) -> bool;

    /// Whether it may be longer than the length field of the IP header at
    /// `network` can say: many TCP segments, merged into one packet (BIG TCP).
    fn is_merged(&self, network: usize) -> bool;
}

/// How far into a packet a program reads by itself. The verifier takes no
/// offset that may be beyond 65,535 (`MAX_PACKET_OFF`, kernel/bpf/verifier.c).
pub const NEAR: usize = 1 << 12;

/// The offset, if a program reads by itself so far into a packet.
///
/// The compiler knows offsets as sums, and would compare a part of the sum with a
/// part of the limit. Before Linux 6.10 the verifier doesn't see what that says of
/// the sum (`sync_linked_regs`, kernel/bpf/verifier.c), and refuses the read.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn bounded(offset: usize) -> Option<usize> {
    let offset = opaque(offset);
    (offset <= NEAR).then_some(offset)
}

/// The same value, of which the compiler knows nothing any more.
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

/// A word at this distance from `start`, as a program reads it by itself; none if it
/// is beyond `end`, or ends there. The distance has to be small for the verifier to
/// see.
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

/// The bits that are left of a value which is [blurred](Packet::blurred): enough for
/// the longest packet that its header says the length of, behind 40 bytes.
const BLURRED: usize = (1 << 17) - 1;

/// What [`Packet::forget`] says.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[must_use]
pub fn forget(mut value: usize, by: u32) -> usize {
    // SAFETY: the second instruction takes back what the first does. By the third the
    // verifier has the same bounds for it however often this is done.
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

/// The shortest IP packet whose length a field of 16 bits can't say, in bytes.
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
