//! What a path means: from a name as it is written to the module that defines it.

use std::collections::{BTreeMap, BTreeSet};

use syn::Item;

use super::mentions::{Mention, mentions_in};
use super::source::{ModulePath, SourceTree};

/// More steps than any chain of re-exports here has; what takes more is a circle.
const MOST_STEPS: u32 = 16;

/// The names of all modules.
pub(super) struct AllScopes {
    scopes: BTreeMap<ModulePath, ModuleScope>,
}

/// The names of one module.
pub(super) struct ModuleScope {
    pub(super) file: String,
    pub(super) mentions: Vec<Mention>,
    uses: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    defined: BTreeSet<String>,
}

impl AllScopes {
    pub(super) fn of(tree: &SourceTree) -> Self {
        let scope = |(path, module): (&ModulePath, &super::source::SourceModule)| {
            let mentions = mentions_in(&module.items);
            let mut scope = ModuleScope {
                file: module.file.clone(),
                uses: BTreeMap::new(),
                globs: Vec::new(),
                defined: module.items.iter().filter_map(defines).collect(),
                mentions: Vec::new(),
            };
            for mention in &mentions {
                match &mention.used {
                    Some(leaf) if leaf.is_glob => scope.globs.push(mention.segments.clone()),
                    Some(leaf) => {
                        let names = leaf.name.iter().cloned();
                        scope
                            .uses
                            .extend(names.map(|name| (name, mention.segments.clone())));
                    }
                    None => {}
                }
            }
            scope.mentions = mentions;
            (path.clone(), scope)
        };
        Self {
            scopes: tree.modules.iter().map(scope).collect(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ModulePath, &ModuleScope)> {
        self.scopes.iter()
    }

    pub(super) fn is_module(&self, path: &[String]) -> bool {
        self.scopes.contains_key(path)
    }

    /// The path from a crate's root on; none for what is of no crate here.
    pub(super) fn absolute(&self, module: &[String], written: &[String]) -> Option<ModulePath> {
        self.absolute_in(module, written, MOST_STEPS)
    }

    /// The file that defines what an absolute path names, through all re-exports.
    pub(super) fn file_of(&self, absolute: &[String]) -> Option<&str> {
        let module = self.definer(absolute, MOST_STEPS)?;
        self.scopes.get(&module).map(|scope| scope.file.as_str())
    }

    fn absolute_in(&self, module: &[String], written: &[String], steps: u32) -> Option<ModulePath> {
        let steps = steps.checked_sub(1)?;
        let (first, rest) = written.split_first()?;
        let below = |above: &[String]| Some([above, rest].concat());
        match first.as_str() {
            "crate" => return below(&module[..1]),
            "self" => return below(module),
            "super" => {
                let mut up = 1;
                while rest.get(up - 1).is_some_and(|next| next == "super") {
                    up += 1;
                }
                let above = module.len().checked_sub(up).filter(|left| *left > 0)?;
                return Some([&module[..above], &written[up..]].concat());
            }
            _ => {}
        }
        let own = [module, std::slice::from_ref(first)].concat();
        let scope = self.scopes.get(module)?;
        if self.is_module(&own) || scope.defined.contains(first) {
            return below(&own);
        }
        if let Some(target) = scope.uses.get(first)
            && target != std::slice::from_ref(first)
        {
            return below(&self.absolute_in(module, target, steps)?);
        }
        let is_crate = self.is_module(std::slice::from_ref(first));
        is_crate.then(|| written.to_vec())
    }

    fn definer(&self, absolute: &[String], steps: u32) -> Option<ModulePath> {
        let steps = steps.checked_sub(1)?;
        let mut module = absolute.get(..1)?.to_vec();
        for (at, name) in absolute.iter().enumerate().skip(1) {
            let child = [&module[..], std::slice::from_ref(name)].concat();
            if self.is_module(&child) {
                module = child;
                continue;
            }
            let scope = self.scopes.get(&module)?;
            if scope.defined.contains(name) {
                break;
            }
            if let Some(target) = scope.uses.get(name) {
                let target = self.absolute_in(&module, target, steps)?;
                return self.definer(&[&target[..], &absolute[at + 1..]].concat(), steps);
            }
            let glob = scope.globs.iter().find_map(|glob| {
                let glob = self.absolute_in(&module, glob, steps)?;
                self.scopes.get(&glob)?.has(name).then_some(glob)
            });
            let Some(glob) = glob else { break };
            return self.definer(&[&glob[..], &absolute[at..]].concat(), steps);
        }
        self.is_module(&module).then_some(module)
    }
}

impl ModuleScope {
    fn has(&self, name: &str) -> bool {
        self.defined.contains(name) || self.uses.contains_key(name)
    }
}

/// The name that an item defines.
fn defines(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
