//! Judges the imports by the table, and looks for circles among the files.

use std::collections::BTreeSet;

use super::circles::{self, ImportEdges};
use super::known::{AGENT, KnownCircle, KnownImport};
use super::resolve::AllScopes;
use super::table::LayerRow;

/// The crate that has layers; every other one is a layer by itself.
const LAYERED: &str = "conntrack_agent";

/// What imports are judged by.
#[derive(Clone, Copy)]
pub(super) struct ImportRules<'a> {
    pub(super) table: &'a [LayerRow],
    pub(super) imports: &'a [KnownImport],
    pub(super) circles: &'a [KnownCircle],
}

/// What is wrong, a line for each.
pub(super) fn faults(scopes: &AllScopes, rules: ImportRules<'_>) -> Vec<String> {
    let mut faults = table_faults(scopes, rules.table);
    faults.extend(import_faults(scopes, rules));
    faults.extend(circle_faults(&edges(scopes, rules.table), rules.circles));
    faults
}

/// Each layer has a row, and knows only layers whose rows come later.
fn table_faults(scopes: &AllScopes, table: &[LayerRow]) -> Vec<String> {
    let mut faults = Vec::new();
    // The root of the agent's library only lists the modules.
    let modules = scopes.iter().map(|(module, _)| module);
    let layers: BTreeSet<&str> = modules
        .filter(|module| *module != &[LAYERED])
        .map(|module| layer_of(module))
        .collect();
    for layer in &layers {
        if !table.iter().any(|row| row.layer == *layer) {
            faults.push(format!("{layer} has no row in the table of layers"));
        }
    }
    for (at, row) in table.iter().enumerate() {
        if !layers.contains(row.layer) {
            faults.push(format!(
                "{} has a row in the table, and is no layer",
                row.layer
            ));
        }
        let is_below = |name: &&&str| !table[at + 1..].iter().any(|below| below.layer == **name);
        for above in row.imports.iter().filter(is_below) {
            let layer = row.layer;
            faults.push(format!(
                "the table lets {layer} import {above}, which is not below it"
            ));
        }
    }
    faults
}

fn import_faults(scopes: &AllScopes, rules: ImportRules<'_>) -> BTreeSet<String> {
    let mut faults = BTreeSet::new();
    let mut needed = BTreeSet::new();
    for (module, scope) in scopes.iter() {
        let from = layer_of(module);
        for mention in &scope.mentions {
            let first = mention.segments.first().map_or("", String::as_str);
            // Other paths begin with a name that a `use` has brought, and was judged by.
            let is_import = mention.used.is_some()
                || matches!(first, "crate" | "super")
                || scopes.is_module(&[first.to_owned()]);
            let absolute = scopes.absolute(module, &mention.segments);
            let Some(absolute) = absolute.filter(|_| is_import) else {
                continue;
            };
            let to = layer_of(&absolute);
            if allows(rules.table, from, to) {
                continue;
            }
            let known = |known: &&KnownImport| is_known(known, &scope.file, to);
            if let Some(known) = rules.imports.iter().find(known) {
                needed.insert((known.file, known.layer));
            } else {
                let (file, line) = (&scope.file, mention.line);
                faults.insert(format!("{file}:{line}: {from} may not import {to}"));
            }
        }
    }
    for known in rules.imports {
        if !needed.contains(&(known.file, known.layer)) {
            let KnownImport { file, layer, .. } = known;
            faults.insert(format!("{AGENT}{file} imports {layer} no longer: {DELETE}"));
        }
    }
    faults
}

fn allows(table: &[LayerRow], from: &str, to: &str) -> bool {
    let mut rows = table.iter().filter(|row| row.layer == from);
    from == to || rows.any(|row| row.imports.contains(&to))
}

fn is_known(known: &KnownImport, file: &str, layer: &str) -> bool {
    file.strip_prefix(AGENT) == Some(known.file) && layer == known.layer
}

const DELETE: &str = "delete its line in xtask/src/layers/known.rs";

/// A known circle is one import that closes it; without those there may be none.
fn circle_faults(edges: &ImportEdges, known: &[KnownCircle]) -> Vec<String> {
    let files = |known: &KnownCircle| {
        let KnownCircle {
            folder,
            file,
            imports,
            ..
        } = known;
        (format!("{folder}{file}"), format!("{folder}{imports}"))
    };
    let mut rest = edges.clone();
    for known in known {
        rest.remove(&files(known));
    }
    let mut faults: Vec<_> = circles::circles(&rest)
        .iter()
        .map(|circle| format!("a circle of imports: {}", circles::tell(&rest, circle)))
        .collect();
    // What is known is judged by the ways back, and those go through any new circle.
    if !faults.is_empty() {
        return faults;
    }
    for known in known {
        let (file, imports) = files(known);
        let is_there = edges.contains_key(&(file.clone(), imports.clone()));
        let back = circles::between(&rest, &imports, &file);
        if !is_there || back.is_empty() {
            faults.push(format!(
                "{file} with {imports} is no circle any more: {DELETE}"
            ));
        } else if back.len() > known.size {
            let (size, back) = (known.size, back.into_iter().collect::<Vec<_>>().join(", "));
            faults.push(format!(
                "the circle of {file} and {imports} has grown beyond {size} files: {back}"
            ));
        }
    }
    faults
}

/// Which file needs which other. To re-export what is of a child needs nothing by
/// itself, and neither does the name of a module: what is then said of it does. What
/// is against the table counts as gone: it has been judged, and would make one circle
/// of many.
fn edges(scopes: &AllScopes, table: &[LayerRow]) -> ImportEdges {
    let mut edges = ImportEdges::new();
    for (module, scope) in scopes.iter() {
        for mention in &scope.mentions {
            let Some(absolute) = scopes.absolute(module, &mention.segments) else {
                continue;
            };
            let is_glob = mention.used.as_ref().is_some_and(|leaf| leaf.is_glob);
            let is_reexport = mention.used.as_ref().is_some_and(|leaf| leaf.is_reexport)
                && absolute.starts_with(module);
            let is_allowed = allows(table, layer_of(module), layer_of(&absolute));
            if !is_allowed || is_reexport || scopes.is_module(&absolute) && !is_glob {
                continue;
            }
            if let Some(file) = scopes.file_of(&absolute)
                && file != scope.file
            {
                let edge = (scope.file.clone(), file.to_owned());
                let line = edges.entry(edge).or_insert(mention.line);
                *line = mention.line.min(*line);
            }
        }
    }
    edges
}

/// The top-level module that a path leads into.
fn layer_of(path: &[String]) -> &str {
    match path {
        [root, layer, ..] if root == LAYERED => layer,
        [root, ..] => root,
        [] => "",
    }
}
