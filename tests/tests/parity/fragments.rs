//! How a packet is cut into fragments, well and badly.

use fastrand::Rng;

use crate::network::Piece;

/// The fragments of something, in the order in which they are sent.
pub(crate) struct Cut {
    pub(crate) pieces: Vec<Piece>,
    /// Whether a receiver gets exactly what was cut.
    pub(crate) is_clean: bool,
}

/// Cuts at random.
pub(crate) fn cut(rng: &mut Rng, bytes: &[u8]) -> Cut {
    let mut pieces = pieces(rng, bytes);
    let is_clean = match rng.u8(..14) {
        0..4 => true,
        4 | 5 => {
            pieces.reverse();
            true
        }
        6 | 7 => {
            rng.shuffle(&mut pieces);
            true
        }
        // One of them twice: the kernel ignores the second.
        8 => {
            let at = rng.usize(..pieces.len());
            let again = pieces[at].clone();
            pieces.insert(rng.usize(..=at), again);
            pieces.len() > 2
        }
        // Again, and not the same: which one counts is the kernel's choice.
        9 => {
            let at = if rng.bool() {
                0
            } else {
                rng.usize(..pieces.len())
            };
            let mut other = pieces[at].clone();
            let byte = rng.usize(..other.bytes.len().clamp(1, 8));
            if let Some(byte) = other.bytes.get_mut(byte) {
                *byte ^= 1 << rng.u8(..8);
            }
            pieces.insert(rng.usize(..=pieces.len()), other);
            false
        }
        // One that covers a part of others.
        10 | 11 => {
            let start = rng.usize(..=bytes.len() / 8) * 8;
            let end = (start + rng.usize(1..=4) * 8).min(bytes.len());
            let more = end < bytes.len() || rng.bool();
            let piece = Piece {
                offset: start,
                bytes: bytes[start..end].iter().map(|byte| byte ^ 1).collect(),
                more,
            };
            pieces.insert(rng.usize(..=pieces.len()), piece);
            false
        }
        // One that never comes.
        12 => {
            pieces.remove(rng.usize(..pieces.len()));
            false
        }
        // One with an end where no fragment may end, or that says it is the last.
        _ => {
            let at = rng.usize(..pieces.len());
            if rng.bool() {
                let length = pieces[at].bytes.len();
                pieces[at]
                    .bytes
                    .truncate(length - rng.usize(..length.clamp(1, 8)));
            } else {
                pieces[at].more ^= true;
            }
            false
        }
    };
    Cut { pieces, is_clean }
}

/// In order, without a gap; often with a first one that is as short as it can be.
fn pieces(rng: &mut Rng, bytes: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut offset = 0;
    while offset < bytes.len() {
        let is_first = offset == 0;
        let units = match rng.u8(..6) {
            0 | 1 if is_first => 1,
            2 if is_first => rng.usize(1..4),
            _ => rng.usize(1..=(bytes.len() / 8).max(1)),
        };
        let end = (offset + units * 8).min(bytes.len());
        pieces.push(Piece {
            offset,
            bytes: bytes[offset..end].to_vec(),
            more: end < bytes.len(),
        });
        offset = end;
    }
    pieces
}
