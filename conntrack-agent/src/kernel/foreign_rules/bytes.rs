//! Reads names and numbers from the kernel's structs.

/// Returns a name, which ends at its first NUL, if it has one.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let name = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// Returns the number at this offset, in this machine's byte order.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let value = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*value))
}

/// Returns the number at this offset, in this machine's byte order.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let value = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*value))
}
