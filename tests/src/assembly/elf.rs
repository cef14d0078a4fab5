//! The file (elf(5)).

use super::{Code, PROGRAM, TABLE};

const HEADER: usize = 64;
// The sections' numbers; the last two are only there with a table.
const CODE: u16 = 1;
const SYMBOLS: u32 = 2;
const NAMES: u16 = 3;
const MAPS: u16 = 4;

/// `struct bpf_map_def` of the loaders: type, sizes of key and value, entries,
/// flags. `BPF_MAP_TYPE_PROG_ARRAY` is 3.
const TABLE_DEFINITION: [u32; 5] = [3, 4, 4, 1, 0];

/// Names, each followed by a NUL; the first is the empty one.
#[derive(Default)]
struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, name: &str) -> u32 {
        let at = u32::try_from(self.0.len()).expect("a small file");
        self.0.extend(name.as_bytes());
        self.0.push(0);
        at
    }
}

/// A section: what its header says beside place and size, and its content.
struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    link: u32,
    information: u32,
    entry: u64,
    content: Vec<u8>,
}

fn symbol(name: u32, kind: u8, section: u16, size: usize) -> Vec<u8> {
    const GLOBAL: u8 = 1 << 4;
    let mut symbol = name.to_ne_bytes().to_vec();
    symbol.extend([GLOBAL | kind, 0]);
    symbol.extend(section.to_ne_bytes());
    symbol.extend(0_u64.to_ne_bytes());
    symbol.extend((size as u64).to_ne_bytes());
    symbol
}

fn sections(code: &Code, name: &str) -> Vec<Section> {
    const PROGBITS: u32 = 1;
    const SYMTAB: u32 = 2;
    const STRTAB: u32 = 3;
    const REL: u32 = 9;
    const WRITE: u64 = 1;
    const ALLOC: u64 = 2;
    const EXECINSTR: u64 = 4;
    const OBJECT: u8 = 1;
    const FUNC: u8 = 2;
    const SECOND_SYMBOL: u64 = 2;
    const R_BPF_64_64: u64 = 1;

    let mut names = Strings::default();
    let nothing = names.add("");
    let section = |name, kind, content| Section {
        name,
        kind,
        flags: 0,
        link: 0,
        information: 0,
        entry: 0,
        content,
    };
    let mut symbols = vec![0; 24];
    symbols.extend(symbol(names.add(PROGRAM), FUNC, CODE, code.bytes.len()));
    let definition = TABLE_DEFINITION.map(u32::to_ne_bytes).concat();
    let mut relocations = Vec::new();
    for at in &code.wants_table {
        relocations.extend((*at as u64).to_ne_bytes());
        relocations.extend((SECOND_SYMBOL << 32 | R_BPF_64_64).to_ne_bytes());
    }
    let has_table = !relocations.is_empty();
    if has_table {
        symbols.extend(symbol(names.add(TABLE), OBJECT, MAPS, definition.len()));
    }
    let mut all = vec![
        section(nothing, 0, Vec::new()),
        Section {
            flags: ALLOC | EXECINSTR,
            ..section(names.add(name), PROGBITS, code.bytes.clone())
        },
        Section {
            link: NAMES.into(),
            information: 1,
            entry: 24,
            ..section(names.add(".symtab"), SYMTAB, symbols)
        },
        section(names.add(".strtab"), STRTAB, Vec::new()),
    ];
    if has_table {
        all.push(Section {
            flags: ALLOC | WRITE,
            ..section(names.add("maps"), PROGBITS, definition)
        });
        all.push(Section {
            link: SYMBOLS,
            information: CODE.into(),
            entry: 16,
            ..section(names.add(&format!(".rel{name}")), REL, relocations)
        });
    }
    all[usize::from(NAMES)].content = names.0;
    all
}

pub(super) fn file(code: &Code, name: &str) -> Vec<u8> {
    const REL_FILE: u16 = 1;
    const EM_BPF: u16 = 247;
    let sections = sections(code, name);
    // Behind the header the contents, each at a multiple of 8, then their headers.
    let (mut contents, mut headers) = (Vec::<u8>::new(), Vec::<u8>::new());
    for section in &sections {
        contents.resize(contents.len().next_multiple_of(8), 0);
        let (place, size) = (HEADER + contents.len(), section.content.len());
        headers.extend(
            [section.name, section.kind]
                .map(u32::to_ne_bytes)
                .as_flattened(),
        );
        let words = [section.flags, 0, place as u64, size as u64];
        headers.extend(words.map(u64::to_ne_bytes).as_flattened());
        headers.extend(
            [section.link, section.information]
                .map(u32::to_ne_bytes)
                .as_flattened(),
        );
        headers.extend([8, section.entry].map(u64::to_ne_bytes).as_flattened());
        contents.extend(&section.content);
    }
    contents.resize(contents.len().next_multiple_of(8), 0);
    let headers_at = (HEADER + contents.len()) as u64;

    let data = if cfg!(target_endian = "big") { 2 } else { 1 };
    let mut file = vec![
        0x7f, b'E', b'L', b'F', 2, data, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    file.extend([REL_FILE, EM_BPF].map(u16::to_ne_bytes).as_flattened());
    file.extend(1_u32.to_ne_bytes());
    file.extend([0, 0, headers_at].map(u64::to_ne_bytes).as_flattened());
    file.extend(0_u32.to_ne_bytes());
    // Sizes of headers, the number of sections, the one with the names.
    let count = u16::try_from(sections.len()).expect("a few sections");
    let sizes = [64, 0, 0, 64, count, NAMES];
    file.extend(sizes.map(u16::to_ne_bytes).as_flattened());
    file.extend(contents);
    file.extend(headers);
    file
}
