//! The paths that a module mentions: in `use`, in its code, in macros.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ImplItemFn, Item, ItemUse, Macro, Meta, Path, UseTree, Visibility};

use super::source::{attributes, is_test};

/// A path as it is written, and where.
#[derive(Clone)]
pub(super) struct Mention {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    /// What it is in a `use`; none for a path in the code.
    pub(super) used: Option<UseLeaf>,
}

/// One name that a `use` brings.
#[derive(Clone)]
pub(super) struct UseLeaf {
    /// None for `*` and `_`.
    pub(super) name: Option<String>,
    pub(super) is_glob: bool,
    /// A re-export is for others, and says nothing of what the module itself needs.
    pub(super) is_reexport: bool,
}

/// All that these items of one module mention, tests among them left out.
pub(super) fn mentions_in(items: &[Item]) -> Vec<Mention> {
    let mut collector = Collector::default();
    for item in items {
        collector.visit_item(item);
    }
    collector.found
}

#[derive(Default)]
struct Collector {
    found: Vec<Mention>,
}

impl Collector {
    fn leaves(&mut self, tree: &UseTree, above: &[String], is_reexport: bool) {
        let mut leaf = |last: Option<&Ident>, name: Option<&Ident>, line: &Ident| {
            let own = last.filter(|last| *last != "self").map(Ident::to_string);
            let segments: Vec<_> = above.iter().cloned().chain(own).collect();
            let name = match name {
                // `use a::{self}` binds `a`.
                Some(name) if name == "self" => segments.last().cloned(),
                Some(name) if name == "_" => None,
                name => name.map(Ident::to_string),
            };
            let used = UseLeaf {
                is_glob: last.is_none(),
                name,
                is_reexport,
            };
            self.push(segments, line, Some(used));
        };
        match tree {
            UseTree::Path(path) => {
                let above = [above, &[path.ident.to_string()]].concat();
                self.leaves(&path.tree, &above, is_reexport);
            }
            UseTree::Name(name) => leaf(Some(&name.ident), Some(&name.ident), &name.ident),
            UseTree::Rename(name) => leaf(Some(&name.ident), Some(&name.rename), &name.ident),
            UseTree::Glob(glob) => {
                let star = Ident::new("glob", glob.star_token.spans[0]);
                leaf(None, None, &star);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.leaves(tree, above, is_reexport);
                }
            }
        }
    }

    fn push(&mut self, segments: Vec<String>, at: &Ident, used: Option<UseLeaf>) {
        self.found.push(Mention {
            segments,
            line: at.span().start().line,
            used,
        });
    }

    /// Paths in what a macro is given, which nobody but the macro can parse. A single
    /// word may be anything there; one that begins like a type is taken for one.
    fn tokens(&mut self, stream: &TokenStream) {
        let trees: Vec<_> = stream.clone().into_iter().collect();
        let is = |at: usize, sign: char| matches!(trees.get(at), Some(TokenTree::Punct(found)) if found.as_char() == sign);
        let mut at = 0;
        while let Some(tree) = trees.get(at) {
            at += 1;
            let first = match tree {
                TokenTree::Group(group) => {
                    self.tokens(&group.stream());
                    continue;
                }
                TokenTree::Ident(first) => first,
                _ => continue,
            };
            // A field, a method, or the end of a path that began with more than words.
            let is_part =
                at > 1 && (is(at - 2, '.') || at > 2 && is(at - 2, ':') && is(at - 3, ':'));
            let mut segments = vec![first.to_string()];
            while is(at, ':')
                && is(at + 1, ':')
                && let Some(TokenTree::Ident(next)) = trees.get(at + 2)
            {
                segments.push(next.to_string());
                at += 3;
            }
            if !is_part && (segments.len() > 1 || segments[0].starts_with(char::is_uppercase)) {
                self.push(segments, first, None);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            let is_reexport = !matches!(item.vis, Visibility::Inherited);
            self.leaves(&item.tree, &[], is_reexport);
        }
    }

    /// `pub(super)` is no mention of the parent.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none()
            && let Some(first) = path.segments.first()
        {
            let segments = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string());
            self.push(segments.collect(), &first.ident, None);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(&call.tokens);
    }

    /// An attribute's own name is no path of ours.
    fn visit_meta(&mut self, meta: &'ast Meta) {
        match meta {
            Meta::Path(_) => {}
            Meta::List(list) => self.tokens(&list.tokens),
            Meta::NameValue(pair) => self.visit_expr(&pair.value),
        }
    }
}
