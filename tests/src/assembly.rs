//! eBPF programs of a few instructions, and the ELF file around them, as no loader
//! takes bare instructions.

mod elf;

/// Instructions as the kernel encodes them (BPF ISA, RFC 9669): opcode,
/// registers, offset, immediate.
#[derive(Debug, Default)]
pub struct Code {
    bytes: Vec<u8>,
    /// Where the instructions start that want the address of [`TABLE`].
    wants_table: Vec<usize>,
}

/// `BPF_ALU64 | BPF_MOV | BPF_X`.
pub const MOVE: u8 = 0xbf;
/// `BPF_ALU64 | BPF_MOV | BPF_K`.
pub const MOVE_IMMEDIATE: u8 = 0xb7;
/// `BPF_ALU64 | BPF_ADD | BPF_K`.
pub const ADD_IMMEDIATE: u8 = 0x07;
/// `BPF_ALU64 | BPF_SUB | BPF_X`.
pub const SUBTRACT: u8 = 0x1f;
/// `BPF_LDX | BPF_MEM | BPF_W`.
pub const LOAD_WORD: u8 = 0x61;
/// `BPF_STX | BPF_MEM | BPF_W`.
pub const STORE_WORD: u8 = 0x63;
/// `BPF_ST | BPF_MEM | BPF_W`.
pub const STORE_WORD_IMMEDIATE: u8 = 0x62;
/// `BPF_JMP | BPF_JNE | BPF_K`.
pub const JUMP_IF_NOT_IMMEDIATE: u8 = 0x55;
/// `BPF_JMP | BPF_JGT | BPF_X`.
pub const JUMP_IF_GREATER: u8 = 0x2d;
/// `BPF_JMP | BPF_CALL`; the immediate says which helper.
pub const CALL: u8 = 0x85;
/// `BPF_JMP | BPF_EXIT`.
pub const EXIT: u8 = 0x95;

/// `BPF_LD | BPF_IMM | BPF_DW`, the one instruction that takes two places.
const LOAD_ADDRESS: u8 = 0x18;

/// What the program in the file is called: as the agent's own, so that none is
/// taken for it by its name.
pub const PROGRAM: &str = "classify";
/// What its array of one program is called, where it has one.
pub const TABLE: &str = "TABLE";

impl Code {
    /// One more instruction.
    pub fn push(&mut self, opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.bytes.extend([opcode, from << 4 | to]);
        self.bytes.extend(offset.to_ne_bytes());
        self.bytes.extend(immediate.to_ne_bytes());
    }

    /// The address of [`TABLE`] into a register: an array for one program to go on
    /// with (`bpf_tail_call`, bpf-helpers(7)).
    pub fn load_table(&mut self, to: u8) {
        self.wants_table.push(self.bytes.len());
        self.push(LOAD_ADDRESS, to, 0, 0, 0);
        self.push(0, 0, 0, 0, 0);
    }

    /// An object file with this program alone; its section says of which kind it
    /// is, as libbpf names them.
    #[must_use]
    pub fn object(&self, section: &str) -> Vec<u8> {
        elf::file(self, section)
    }
}
