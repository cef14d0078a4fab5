//! Names of types that several types have: who reads one has to ask which it is.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use proc_macro2::Ident;
use syn::visit::{self, Visit};
use syn::{Item, ItemEnum, ItemStruct, ItemTrait};

use crate::layers::{SourceTree, attributes, is_test};

/// Names with the places where they are defined.
type NamePlaces = BTreeMap<String, Vec<String>>;

/// Fails with the names that several types have, if there are any.
pub(crate) fn check(tree: &SourceTree) -> Result<Vec<String>> {
    let shared = shared(tree);
    let mut lines = vec![format!("{} names of several types", shared.len())];
    if shared.is_empty() {
        return Ok(lines);
    }
    lines.extend(
        shared
            .iter()
            .map(|(name, places)| format!("  {name}: {}", places.join(", "))),
    );
    bail!(lines.join("\n      "))
}

/// Structs, enums and traits whose name is another's too.
fn shared(tree: &SourceTree) -> NamePlaces {
    let mut places = NamePlaces::new();
    for module in tree.modules.values() {
        let mut types = TypeNames::default();
        for item in &module.items {
            types.visit_item(item);
        }
        for name in types.found {
            let place = format!("{}:{}", module.file, name.span().start().line);
            places.entry(name.to_string()).or_default().push(place);
        }
    }
    places.retain(|_, places| places.len() > 1);
    places
}

#[derive(Default)]
struct TypeNames {
    found: Vec<Ident>,
}

impl<'ast> Visit<'ast> for TypeNames {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.found.push(item.ident.clone());
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        self.found.push(item.ident.clone());
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.found.push(item.ident.clone());
        visit::visit_item_trait(self, item);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_name_of_two_types_is_found_with_its_places() {
        let read = |file: &str| {
            let text = match file {
                "lib.rs" => "mod a; mod b; mod tests; struct Once;\n#[cfg(test)] struct Twice;",
                "/a.rs" => "\nstruct Twice;\nfn f() {\nenum Local {} }",
                "/b.rs" => "trait Twice {} use c::Once; type Once = Local; struct Local;",
                _ => return None,
            };
            Some(text.to_owned())
        };
        let mut tree = SourceTree::default();
        tree.add("x", "lib.rs", &read).unwrap();

        let places = |places: &[&str]| places.iter().map(|&place| place.to_owned()).collect();
        assert_eq!(
            shared(&tree),
            NamePlaces::from([
                ("Local".to_owned(), places(&["/a.rs:4", "/b.rs:1"])),
                ("Twice".to_owned(), places(&["/a.rs:2", "/b.rs:1"])),
            ])
        );
    }

    #[test]
    fn a_shared_name_is_an_error_that_names_it() {
        let mut tree = SourceTree::default();
        let text = "mod a { struct S; }\nmod b { struct S; }";
        tree.add("x", "lib.rs", &|_| Some(text.to_owned())).unwrap();

        let error = check(&tree).unwrap_err().to_string();
        assert!(error.contains("S: lib.rs:1, lib.rs:2"), "{error}");
    }

    #[test]
    fn this_workspace_keeps_to_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        check(&crate::layers::sources(root).unwrap()).unwrap();
    }
}
