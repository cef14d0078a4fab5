//! Judges the imports by the table, and looks for circles among the files.

use std::collections::BTreeSet;

use super::circles::{self, ImportEdges};
use super::resolve::AllScopes;
use super::table::LayerRow;

/// The crate that has layers; every other one is a layer by itself.
const LAYERED: &str = "conntrack_agent";

/// What is wrong, a line for each.
pub(super) fn faults(scopes: &AllScopes, table: &[LayerRow]) -> Vec<String> {
    let mut faults = table_faults(scopes, table);
    faults.extend(import_faults(scopes, table));
    let edges = edges(scopes);
    let circles = circles::circles(&edges);
    let told = circles.iter().map(|circle| circles::tell(&edges, circle));
    faults.extend(told.map(|circle| format!("a circle of imports: {circle}")));
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

fn import_faults(scopes: &AllScopes, table: &[LayerRow]) -> BTreeSet<String> {
    let mut faults = BTreeSet::new();
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
            if !allows(table, from, to) {
                let (file, line) = (&scope.file, mention.line);
                faults.insert(format!("{file}:{line}: {from} may not import {to}"));
            }
        }
    }
    faults
}

fn allows(table: &[LayerRow], from: &str, to: &str) -> bool {
    let mut rows = table.iter().filter(|row| row.layer == from);
    from == to || rows.any(|row| row.imports.contains(&to))
}

/// Which file needs which other. To re-export what is of a child needs nothing by
/// itself, and neither does the name of a module: what is then said of it does. What a
/// part takes of the modules that it is in counts for nothing: to share them is what it
/// is in them for.
fn edges(scopes: &AllScopes) -> ImportEdges {
    let mut edges = ImportEdges::new();
    for (module, scope) in scopes.iter() {
        for mention in &scope.mentions {
            let Some(absolute) = scopes.absolute(module, &mention.segments) else {
                continue;
            };
            let is_glob = mention.used.as_ref().is_some_and(|leaf| leaf.is_glob);
            let is_reexport = mention.used.as_ref().is_some_and(|leaf| leaf.is_reexport)
                && absolute.starts_with(module);
            if is_reexport || scopes.is_module(&absolute) && !is_glob {
                continue;
            }
            if let Some(file) = scopes.file_of(&absolute)
                && !is_in(&scope.file, file)
            {
                let edge = (scope.file.clone(), file.to_owned());
                let line = edges.entry(edge).or_insert(mention.line);
                *line = mention.line.min(*line);
            }
        }
    }
    edges
}

/// Whether a file is this one, or of a module in its module.
fn is_in(file: &str, outer: &str) -> bool {
    let folder = outer.strip_suffix(".rs").unwrap_or(outer);
    file == outer
        || file
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
}

/// The top-level module that a path leads into.
fn layer_of(path: &[String]) -> &str {
    match path {
        [root, layer, ..] if root == LAYERED => layer,
        [root, ..] => root,
        [] => "",
    }
}
