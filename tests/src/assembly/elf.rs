//! The file (elf(5)).

use object::write::{Object, Relocation, SectionId, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope, elf::R_BPF_64_64,
};

use super::{Code, PROGRAM, TABLE};

/// `struct bpf_map_def` of the loaders: type, sizes of key and value, entries,
/// flags. `BPF_MAP_TYPE_PROG_ARRAY` is 3.
const TABLE_DEFINITION: [u32; 5] = [3, 4, 4, 1, 0];

/// Instructions and data are at multiples of this.
const ALIGNMENT: u64 = 8;

pub(super) fn file(code: &Code, name: &str) -> Vec<u8> {
    let order = if cfg!(target_endian = "big") {
        Endianness::Big
    } else {
        Endianness::Little
    };
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, order);
    let program = section(&mut file, name, SectionKind::Text, &code.bytes);
    file.add_symbol(symbol(PROGRAM, SymbolKind::Text, program, code.bytes.len()));
    if !code.wants_table.is_empty() {
        let definition = TABLE_DEFINITION.map(u32::to_ne_bytes).concat();
        let maps = section(&mut file, "maps", SectionKind::Data, &definition);
        let table = file.add_symbol(symbol(TABLE, SymbolKind::Data, maps, definition.len()));
        for &at in &code.wants_table {
            let relocation = Relocation {
                offset: at as u64,
                symbol: table,
                addend: 0,
                flags: RelocationFlags::Elf {
                    r_type: R_BPF_64_64,
                },
            };
            file.add_relocation(program, relocation)
                .expect("a relocation of the BPF target");
        }
    }
    file.write().expect("a small file")
}

fn section(file: &mut Object<'_>, name: &str, kind: SectionKind, content: &[u8]) -> SectionId {
    let section = file.add_section(Vec::new(), name.into(), kind);
    file.append_section_data(section, content, ALIGNMENT);
    section
}

/// A symbol at its section's start.
fn symbol(name: &str, kind: SymbolKind, section: SectionId, size: usize) -> Symbol {
    Symbol {
        name: name.into(),
        value: 0,
        size: size as u64,
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    }
}
