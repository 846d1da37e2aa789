//! Params and axes that nothing uses.

use std::collections::HashSet;

use super::{
    layers::Merged,
    names,
    origin::{Layer, Origin, Sources},
    problem::{Code, Problem, Problems, similar},
    references, set,
    sweep::{Axes, Axis, AxisSet},
    value::{Node, Table},
};

/// A param of the file itself must be named by some string of the file, also one of a profile that
/// is not chosen. Params of a base file are for whoever extends it.
pub(super) fn check_params(params: &Table, merged: &Merged, problems: &mut Problems) {
    if params.is_empty() {
        return;
    }
    let mut used = HashSet::new();
    for root in [&merged.written, &merged.root] {
        root.walk(&mut Vec::new(), &mut |path, node| used.extend(named(path, node)));
    }
    let written = merged.written.get("params").and_then(Node::as_table);
    // Of a name that no reference can have, all is said already.
    for name in params.keys().filter(|name| !used.contains(*name) && names::is_part(name)) {
        let key = written.and_then(|params| params.get(name)?.key);
        if let Some(key) = key.filter(|key| key.layer == Layer::File) {
            let problem = Problem::new(Code::Unused, format!("the param `{name}` is never used"));
            problems.add(
                problem
                    .at(Some(key), "never used")
                    .help(format!("refer to it as `${{{name}}}`, or take it out")),
            );
        }
    }
}

/// The params and axes that a value names: a string its references, a choice its `by`.
fn named<K: AsRef<str>>(path: &[K], node: &Node) -> Vec<String> {
    let Some(text) = node.as_str() else { return Vec::new() };
    let mut names = references::names(text);
    if path.last().is_some_and(|key| key.as_ref() == "by") {
        names.extend(text.split('.').next().map(str::to_owned));
    }
    names
}

/// Finds axes that nothing uses.
pub(super) struct UnusedAxes<'a> {
    pub axes: &'a Axes,
    pub merged: &'a Merged,
    pub sources: &'a Sources,
}

impl UnusedAxes<'_> {
    /// Reports all axes but those that are `used`.
    pub fn check(&self, used: AxisSet, problems: &mut Problems) {
        for (index, axis) in self.axes.list.iter().enumerate() {
            if used >> index & 1 == 1 || !names::is_part(&axis.name) {
                continue;
            }
            let name = &axis.name;
            problems.add(self.replaced(index).unwrap_or_else(|| {
                let message = format!("no stage uses the sweep axis `{name}`");
                let problem = Problem::new(Code::Unused, message).at(axis.key, "changes nothing");
                problem.help(match self.meant(axis, used) {
                    Some(meant) => {
                        let section = match [index, meant].map(|index| self.axes.section(index)) {
                            ["baseline", "one_at_a_time"] => "baseline",
                            [_, section] => section,
                        };
                        format!("did you mean `sweep.{section}.{}`?", self.axes.list[meant].name)
                    }
                    None => format!("use `${{{name}}}` in a stage, or take the axis out"),
                })
            }));
        }
    }

    /// The axis in use that one added by `--set` is most likely a misspelling of.
    fn meant(&self, axis: &Axis, used: AxisSet) -> Option<usize> {
        axis.key.filter(|key| key.layer == Layer::Set)?;
        let in_use = self.axes.names().enumerate().filter(|(index, _)| used >> index & 1 == 1);
        self.axes.position(similar(&axis.name, &in_use.map(|(_, name)| name).collect::<Vec<_>>())?)
    }

    /// What to say where a profile or `--set` put a value in the place of an axis.
    fn replaced(&self, index: usize) -> Option<Problem> {
        let axis = &self.axes.list[index];
        let (name, section) = (&axis.name, self.axes.section(index));
        let (path, origin) = self.in_place_of(name)?;
        let message =
            format!("`{path}` is the value of the sweep axis `{name}`, which nothing uses now");
        let help = match origin.layer {
            Layer::Set => set::axis_help(section, name, self.sources.slice(origin)),
            _ => format!("set `{section} = {{ {name} = ... }}` in the profile's `sweep` instead"),
        };
        let problem = Problem::new(Code::Unused, message).at(Some(origin), "in place of the axis");
        Some(problem.at(axis.key, "the axis").help(help))
    }

    /// The value, and its place, that a profile or `--set` put where the file names an axis.
    fn in_place_of(&self, axis: &str) -> Option<(String, Origin)> {
        let mut found = None;
        for section in ["stages", "params"] {
            let Some(written) = self.merged.written.get(section) else { continue };
            written.walk(&mut vec![section.into()], &mut |path, node| {
                if found.is_some() || !named(path, node).iter().any(|name| name == axis) {
                    return;
                }
                let (mut now, mut depth) = (&*self.merged.root, 0);
                while let Some(next) = path.get(depth).and_then(|key| now.get(key)) {
                    (now, depth) = (next, depth + 1);
                }
                let origin = now.origin.filter(|origin| origin.layer > Layer::File);
                found = origin.map(|origin| (path[..depth].join("."), origin));
            });
        }
        found
    }
}
