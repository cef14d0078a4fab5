//! Tests of the layers, on small sources that are made up.

use super::known::{KnownCircle, KnownImport};
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
const TWO_LAYERS: &str = "mod low; mod top;";

fn scopes(files: &[(&str, &str)]) -> AllScopes {
    let read = |wanted: &str| {
        let wanted = wanted.strip_prefix(known::AGENT)?;
        let (_, text) = files.iter().find(|(name, _)| *name == wanted)?;
        Some((*text).to_owned())
    };
    let mut tree = SourceTree::default();
    let root = format!("{}lib.rs", known::AGENT);
    tree.add("conntrack_agent", &root, &read).unwrap();
    AllScopes::of(&tree)
}

fn faults(files: &[(&str, &str)]) -> Vec<String> {
    faults_with(files, &[], &[])
}

fn faults_with(
    files: &[(&str, &str)],
    imports: &[KnownImport],
    circles: &[KnownCircle],
) -> Vec<String> {
    let rules = ImportRules {
        table: &[TOP, LOW],
        imports,
        circles,
    };
    judge::faults(&scopes(files), rules)
}

const fn circle(size: usize) -> KnownCircle {
    KnownCircle {
        folder: known::AGENT,
        file: "low/a.rs",
        imports: "low.rs",
        size,
        reason: "",
    }
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
    let rules = ImportRules {
        table: &[LOW, TOP],
        imports: &[],
        circles: &[],
    };
    assert_eq!(
        judge::faults(&scopes(&files), rules),
        ["the table lets top import low, which is not below it"]
    );
}

#[test]
fn a_known_import_passes_until_it_is_gone() {
    let known = || KnownImport {
        file: "low.rs",
        layer: "top",
        reason: "",
    };
    let check = |low: &str, expected: &[&str]| {
        let files = [("lib.rs", TWO_LAYERS), ("top.rs", ""), ("low.rs", low)];
        assert_eq!(faults_with(&files, &[known()], &[]), expected, "{low}");
    };
    check("use crate::top::A;", &[]);
    check(
        "",
        &["conntrack-agent/src/low.rs imports top no longer: \
           delete its line in xtask/src/layers/known.rs"],
    );
}

/// A parent that calls its child, and what the child has.
fn family<'a>(parent: &'a str, child: &'a str) -> [(&'static str, &'a str); 5] {
    [
        ("lib.rs", TWO_LAYERS),
        ("top.rs", ""),
        ("low.rs", parent),
        ("low/a.rs", child),
        ("low/b.rs", ""),
    ]
}

#[test]
fn a_circle_is_found() {
    let found = "a circle of imports: conntrack-agent/src/low.rs:2 -> \
                 conntrack-agent/src/low/a.rs:1 -> conntrack-agent/src/low.rs";
    for parent in [
        "mod a; struct Own;\nuse a::Part;",
        "mod a; struct Own;\nfn f() { a::part() }",
        "mod a; struct Own; pub use a::Part;\nfn f(part: Part) {}",
    ] {
        assert_eq!(
            faults(&family(parent, "use super::Own;")),
            [found],
            "{parent}"
        );
    }
}

#[test]
fn a_reexport_is_no_circle() {
    let parent = "mod a; mod b; pub use a::Part; pub use b::*; pub(crate) struct Own;";
    for child in ["use super::Own; pub struct Part;", "use super::b::Other;"] {
        assert_eq!(
            faults(&family(parent, child)),
            Vec::<String>::new(),
            "{child}"
        );
    }
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
fn a_known_circle_passes_until_it_is_cut_or_grows() {
    let parent = "mod a; mod b; struct Own; fn f() { a::part() }";
    let check = |parent: &str, child: &str, size, expected: &[&str]| {
        let faults = faults_with(&family(parent, child), &[], &[circle(size)]);
        assert_eq!(faults, expected, "{parent} {child}");
    };
    check(parent, "use super::Own;", 2, &[]);
    check(
        parent,
        "",
        2,
        &[
            "conntrack-agent/src/low/a.rs with conntrack-agent/src/low.rs is no circle any more: \
           delete its line in xtask/src/layers/known.rs",
        ],
    );
    check(
        parent,
        "use super::Own;",
        1,
        &[
            "the circle of conntrack-agent/src/low/a.rs and conntrack-agent/src/low.rs has grown \
           beyond 1 files: conntrack-agent/src/low.rs, conntrack-agent/src/low/a.rs",
        ],
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
