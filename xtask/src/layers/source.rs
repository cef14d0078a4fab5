//! The modules of a crate, as its files have them. Tests are left out: they may know
//! what they like.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use syn::{Attribute, Item, Meta};

/// Files that are tests' own by their name, whoever declares them.
const OF_TESTS: [&str; 3] = ["tests", "testing", "review"];

/// Where a module is below its crate: the crate's name comes first.
pub(crate) type ModulePath = Vec<String>;

/// A module, with what is in it beside other modules.
pub(crate) struct SourceModule {
    /// The file, below the workspace's root.
    pub(crate) file: String,
    pub(crate) items: Vec<Item>,
}

/// All modules of some crates.
#[derive(Default)]
pub(crate) struct SourceTree {
    pub(crate) modules: BTreeMap<ModulePath, SourceModule>,
}

impl SourceTree {
    /// Adds a crate by the file of its root. `read` has the text of a file below the
    /// workspace's root, if there is one.
    pub(crate) fn add(
        &mut self,
        name: &str,
        file: &str,
        read: &dyn Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let items = parse(file, read)?;
        self.module(vec![name.to_owned()], file, folder, items, read)
    }

    fn module(
        &mut self,
        path: ModulePath,
        file: &str,
        folder: &str,
        items: Vec<Item>,
        read: &dyn Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let mut own = Vec::new();
        for item in items {
            match item {
                item if is_test(attributes(&item)) => {}
                Item::Mod(module) => {
                    let name = module.ident.to_string();
                    let path = [&path[..], std::slice::from_ref(&name)].concat();
                    let folder = format!("{folder}/{name}");
                    if let Some((_, items)) = module.content {
                        self.module(path, file, &folder, items, read)?;
                    } else if !OF_TESTS.contains(&name.as_str()) {
                        let file = format!("{folder}.rs");
                        let items = parse(&file, read)?;
                        self.module(path, &file, &folder, items, read)?;
                    }
                }
                item => own.push(item),
            }
        }
        let module = SourceModule {
            file: file.to_owned(),
            items: own,
        };
        self.modules.insert(path, module);
        Ok(())
    }
}

fn parse(file: &str, read: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Item>> {
    let text = read(file).with_context(|| format!("cannot read {file}"))?;
    let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {file}"))?;
    Ok(parsed.items)
}

/// Whether these attributes leave something to tests.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => {
            let condition = list.tokens.to_string().replace(' ', "");
            list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all(test"))
        }
        Meta::NameValue(_) => false,
    })
}

/// The attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
