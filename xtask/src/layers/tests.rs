//! Tests of the layers, on small sources that are made up.

use super::table::LayerRow;
use super::*;

const TOP: LayerRow = LayerRow {
    layer: "top",
    imports: &["low"],
};
const LOW: LayerRow = LayerRow {
    layer: "low",
    imports: &[],
};
const AGENT: &str = "conntrack-agent/src/";
const TWO_LAYERS: &str = "mod low; mod top;";

fn scopes(files: &[(&str, &str)]) -> AllScopes {
    let read = |wanted: &str| {
        let wanted = wanted.strip_prefix(AGENT)?;
        let (_, text) = files.iter().find(|(name, _)| *name == wanted)?;
        Some((*text).to_owned())
    };
    let mut tree = SourceTree::default();
    let root = format!("{AGENT}lib.rs");
    tree.add("conntrack_agent", &root, &read).unwrap();
    AllScopes::of(&tree)
}

fn faults(files: &[(&str, &str)]) -> Vec<String> {
    judge::faults(&scopes(files), &[TOP, LOW])
}

#[test]
fn what_the_table_allows_is_no_fault() {
    let top = "use crate::low::{self, Thing};\nfn f() { low::g(); }";
    let files = [("lib.rs", TWO_LAYERS), ("top.rs", top), ("low.rs", "")];
    assert_eq!(faults(&files), Vec::<String>::new());
}

#[test]
fn a_wrong_import_is_named_with_file_line_and_layers() {
    let expected = ["conntrack-agent/src/low.rs:2: low may not import top"];
    for low in [
        "\nuse crate::top::Thing;",
        "use crate::{\ntop::{Thing, Other}};",
        "\nfn f() { crate::top::g::<u8>() }",
        "\nfn f() { println!(\"{}\", crate::top::g()) }",
        "\nfn f() -> super::top::Thing { todo!() }",
        "fn f() {\nuse super::top; }",
        "#[derive(X)]\n#[x(crate::top::Thing)] struct A;",
    ] {
        let files = [("lib.rs", TWO_LAYERS), ("top.rs", ""), ("low.rs", low)];
        assert_eq!(faults(&files), expected, "{low}");
    }
}

#[test]
fn tests_may_import_what_they_like() {
    let low = "#[cfg(test)] mod tests { use crate::top::A; }\nmod testing;\n\
               #[cfg(test)] use crate::top::B;\n\
               impl C { #[cfg(test)] fn d() { crate::top::e() } }";
    let files = [("lib.rs", TWO_LAYERS), ("top.rs", ""), ("low.rs", low)];
    assert_eq!(faults(&files), Vec::<String>::new());
}

#[test]
fn a_layer_without_a_row_is_a_fault() {
    let files = [("lib.rs", "mod low; mod new { }"), ("low.rs", "")];
    assert_eq!(
        faults(&files),
        [
            "new has no row in the table of layers",
            "top has a row in the table, and is no layer"
        ]
    );
}

#[test]
fn the_table_itself_has_an_order() {
    let files = [("lib.rs", TWO_LAYERS), ("top.rs", ""), ("low.rs", "")];
    assert_eq!(
        judge::faults(&scopes(&files), &[LOW, TOP]),
        ["the table lets top import low, which is not below it"]
    );
}

#[test]
fn a_circle_of_siblings_is_found() {
    let found = "a circle of imports: conntrack-agent/src/low/a.rs:1 -> \
                 conntrack-agent/src/low/b.rs:1 -> conntrack-agent/src/low/a.rs";
    for b in [
        "use super::a::A;",
        "fn f() { super::a::f() }",
        "use crate::low::{A};",
    ] {
        let files = [
            ("lib.rs", TWO_LAYERS),
            ("top.rs", ""),
            ("low.rs", "mod a; mod b; pub use a::A;"),
            ("low/a.rs", "use super::b::B; pub struct A;"),
            ("low/b.rs", b),
        ];
        assert_eq!(faults(&files), [found], "{b}");
    }
}

#[test]
fn what_a_part_takes_of_its_own_module_is_no_circle() {
    let files = [
        ("lib.rs", TWO_LAYERS),
        ("top.rs", ""),
        ("low.rs", "mod a; struct Own; fn f() { a::part() }"),
        ("low/a.rs", "mod b; use super::Own; use b::part;"),
        ("low/a/b.rs", "use crate::low::Own; use super::Own;"),
    ];
    assert_eq!(faults(&files), Vec::<String>::new());
}

#[test]
fn a_reexport_of_what_is_no_child_counts() {
    let files = [
        ("lib.rs", TWO_LAYERS),
        ("low.rs", ""),
        ("top.rs", "mod x; mod y;"),
        ("top/x.rs", "use super::y::Y; pub struct X;"),
        ("top/y.rs", "pub use super::x::X; pub struct Y;"),
    ];
    assert_eq!(faults(&files).len(), 1);
}

#[test]
fn a_reexport_is_followed_to_the_file_that_defines() {
    let top = "mod x; mod y; pub use x::X; pub use y::Y;";
    let files = [
        ("lib.rs", TWO_LAYERS),
        ("low.rs", ""),
        ("top.rs", top),
        ("top/x.rs", "use super::Y; pub struct X;"),
        ("top/y.rs", "use crate::top::X; pub struct Y;"),
    ];
    assert_eq!(
        faults(&files),
        ["a circle of imports: conntrack-agent/src/top/x.rs:1 -> \
          conntrack-agent/src/top/y.rs:1 -> conntrack-agent/src/top/x.rs"]
    );
}

#[test]
fn the_picture_is_compared_and_drawn_anew() {
    let table = [TOP, LOW];
    let old = "# A\n<!-- layers: written by `cargo xtask layers --write` -->\nold\n\
               <!-- layers: end -->\nB\n";
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(picture::FILE), old).unwrap();
    assert!(picture::fault(old, &table).unwrap().contains("--write"));

    picture::write(folder.path(), &table).unwrap();

    let new = fs::read_to_string(folder.path().join(picture::FILE)).unwrap();
    assert_eq!(picture::fault(&new, &table), None);
    assert!(
        new.contains("\n\n```\ntop                 low\nlow\n```\n\n"),
        "{new}"
    );
    assert!(
        new.starts_with("# A\n") && new.ends_with("-->\nB\n"),
        "{new}"
    );
    assert!(
        picture::fault("no place", &table)
            .unwrap()
            .contains("lacks")
    );
}

#[test]
fn this_workspace_keeps_to_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    check(root).unwrap();
}
