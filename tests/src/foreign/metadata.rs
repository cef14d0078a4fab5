//! An XDP program that writes metadata of a test's choice.

use crate::assembly::{
    ADD_IMMEDIATE, CALL, Code, EXIT, JUMP_IF_GREATER, JUMP_IF_NOT_IMMEDIATE, LOAD_WORD, MOVE,
    MOVE_IMMEDIATE, STORE_WORD_IMMEDIATE,
};

/// `bpf_xdp_adjust_meta`, include/uapi/linux/bpf.h.
const ADJUST_META: i32 = 54;
/// Where `struct xdp_md` has `data` and `data_meta`.
const DATA: i16 = 0;
const DATA_META: i16 = 8;
const XDP_PASS: i32 = 2;

/// An object file with one XDP program, which leaves these words.
pub(super) fn object(words: &[[u8; 4]]) -> Vec<u8> {
    let count = i16::try_from(words.len()).expect("a few words");
    let size = i32::from(count) * 4;
    let mut code = Code::default();
    code.push(MOVE, 6, 1, 0, 0);
    code.push(MOVE_IMMEDIATE, 2, 0, 0, -size);
    code.push(CALL, 0, 0, 0, ADJUST_META);
    code.push(JUMP_IF_NOT_IMMEDIATE, 0, 0, 5 + count, 0);
    code.push(LOAD_WORD, 1, 6, DATA_META, 0);
    code.push(LOAD_WORD, 2, 6, DATA, 0);
    code.push(MOVE, 3, 1, 0, 0);
    code.push(ADD_IMMEDIATE, 3, 0, 0, size);
    code.push(JUMP_IF_GREATER, 3, 2, count, 0);
    for (offset, word) in (0..).step_by(4).zip(words) {
        let word = i32::from_ne_bytes(*word);
        code.push(STORE_WORD_IMMEDIATE, 1, 0, offset, word);
    }
    code.push(MOVE_IMMEDIATE, 0, 0, 0, XDP_PASS);
    code.push(EXIT, 0, 0, 0, 0);
    code.object("xdp")
}
