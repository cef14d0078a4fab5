//! An XDP program that writes metadata of a test's choice: a few instructions and
//! the ELF file around them, as no loader takes bare instructions.

/// Instructions as the kernel encodes them (BPF ISA, RFC 9669): opcode,
/// registers, offset, immediate.
struct Code(Vec<u8>);

impl Code {
    fn push(&mut self, opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.0.extend([opcode, from << 4 | to]);
        self.0.extend(offset.to_ne_bytes());
        self.0.extend(immediate.to_ne_bytes());
    }
}

const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const ADD_IMMEDIATE: u8 = 0x07;
const LOAD_WORD: u8 = 0x61;
const STORE_WORD_IMMEDIATE: u8 = 0x62;
const JUMP_IF_NOT_IMMEDIATE: u8 = 0x55;
const JUMP_IF_GREATER: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// `bpf_xdp_adjust_meta`, include/uapi/linux/bpf.h.
const ADJUST_META: i32 = 54;
/// Where `struct xdp_md` has `data` and `data_meta`.
const DATA: i16 = 0;
const DATA_META: i16 = 8;
const XDP_PASS: i32 = 2;

fn code(words: &[[u8; 4]]) -> Vec<u8> {
    let count = i16::try_from(words.len()).expect("a few words");
    let size = i32::from(count) * 4;
    let mut code = Code(Vec::new());
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
    code.0
}

/// Names of the sections and of the program; each ends with a NUL.
const NAMES: &[u8] = b"\0xdp\0.symtab\0.strtab\0program\0";
const XDP_NAME: u32 = 1;
const SYMTAB_NAME: u32 = 5;
const STRTAB_NAME: u32 = 13;
const PROGRAM_NAME: u32 = 21;

/// What the program in the file is called.
pub(super) const PROGRAM: &str = "program";

/// An object file with one XDP program, which leaves these words (elf(5)).
pub(super) fn object(words: &[[u8; 4]]) -> Vec<u8> {
    const HEADER: u64 = 64;
    let code = code(words);
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).expect("a small file");
    let mut symbols = vec![0; 24];
    symbols.extend(PROGRAM_NAME.to_ne_bytes());
    // STB_GLOBAL, STT_FUNC; in section 1.
    symbols.extend([0x12, 0, 1, 0]);
    symbols.extend(0_u64.to_ne_bytes());
    symbols.extend(length(&code).to_ne_bytes());
    let (code_at, symbols_at) = (HEADER, HEADER + length(&code));
    let names_at = symbols_at + length(&symbols);
    let sections_at = (names_at + length(NAMES)).next_multiple_of(8);

    let data = if cfg!(target_endian = "big") { 2 } else { 1 };
    let mut file = vec![
        0x7f, b'E', b'L', b'F', 2, data, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    // ET_REL, EM_BPF.
    file.extend([1_u16, 247].map(u16::to_ne_bytes).as_flattened());
    file.extend(1_u32.to_ne_bytes());
    file.extend([0, 0, sections_at].map(u64::to_ne_bytes).as_flattened());
    file.extend(0_u32.to_ne_bytes());
    // Sizes of headers, the number of sections, the one with the names.
    file.extend(
        [64_u16, 0, 0, 64, 4, 3]
            .map(u16::to_ne_bytes)
            .as_flattened(),
    );
    for part in [&code[..], &symbols, NAMES] {
        file.extend(part);
    }
    file.resize(usize::try_from(sections_at).expect("a small file"), 0);
    // Name, type, flags, offset, size, link, information, alignment, entry size.
    let sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0),
        // SHT_PROGBITS; SHF_ALLOC, SHF_EXECINSTR.
        (XDP_NAME, 1, 6, code_at, length(&code), 0, 0, 8, 0),
        (SYMTAB_NAME, 2, 0, symbols_at, length(&symbols), 3, 1, 8, 24),
        (STRTAB_NAME, 3, 0, names_at, length(NAMES), 0, 0, 1, 0),
    ];
    for (name, kind, flags, offset, size, link, information, alignment, entry) in sections {
        file.extend([name, kind].map(u32::to_ne_bytes).as_flattened());
        file.extend(
            [flags, 0_u64, offset, size]
                .map(u64::to_ne_bytes)
                .as_flattened(),
        );
        file.extend([link, information].map(u32::to_ne_bytes).as_flattened());
        file.extend([alignment, entry].map(u64::to_ne_bytes).as_flattened());
    }
    file
}
