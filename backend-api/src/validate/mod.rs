//! Whether a node is what the contract says a node is: for the host, and for backends in `supports` and `compile`.
//!
//! What each operation takes stands in tables: dimensions by letters (one letter, one size), parameter words, the inputs
//! that an output may replace.

mod tables;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::{
    error::{BackendError, Code, Result},
    graph::{ABSENT, Graph, Node, Role, Symbol, Tensor},
    operations::{Operation, Window, word},
    overlap::{overlap, overlaps_itself},
    types::Type,
};

use tables::{Kind, SYMBOLIC, Word, in_place, parameters, shapes};

/// Checks every node of a graph, and what no node names.
///
/// # Errors
/// As [`node`], with the node's index in front.
pub fn graph(graph: &Graph<'_>) -> Result<()> {
    if graph.rows > graph.tokens {
        let message = format!("a step of {} tokens has no {} wanted columns", graph.tokens, graph.rows);
        return Err(BackendError::invalid(message));
    }
    if graph.reserved != [0; 4] {
        return Err(BackendError::unsupported("the graph has reserved words that are not 0"));
    }
    graph
        .nodes
        .iter()
        .enumerate()
        .try_for_each(|(i, n)| match node(graph, n) {
            Ok(_) => Ok(()),
            Err(e) => Err(BackendError::new(e.code(), format!("node {i}: {e}"))),
        })
}

/// Checks a node against the conventions and the tables of operations: inputs, types, dimensions, strides, symbols,
/// buffers, parameter words and aliasing. What it accepts can be evaluated without reading or writing outside of the
/// buffers, given ids, positions and tables that the host vouches for.
///
/// # Errors
/// `Unsupported` for operations, types, symbols, roles and parameter values that this version does not know, `Invalid`
/// for everything else that is wrong.
pub fn node(graph: &Graph<'_>, node: &Node) -> Result<Operation> {
    let operation = Operation::from_id(node.operation)
        .ok_or_else(|| BackendError::unsupported(format!("operation {} is not known", node.operation)))?;
    let checked = || {
        let operands = operands(graph, node, operation)?;
        operands.iter().try_for_each(|o| described(graph, o))?;
        let sizes = Sizes::of(&operands)?;
        further_rules(operation, node, &operands, &sizes)?;
        words(operation, node)?;
        aliasing(operation, &operands)
    };
    match checked() {
        Ok(()) => Ok(operation),
        Err(Fault { code, message }) => Err(BackendError::new(code, format!("{}: {message}", operation.name()))),
    }
}

/// An error before the operation's name is put in front.
struct Fault {
    code: Code,
    message: String,
}

type Check<T = ()> = Result<T, Fault>;

fn require(condition: bool, message: impl FnOnce() -> String) -> Check {
    require_as(Code::Invalid, condition, message)
}

fn require_known(condition: bool, message: impl FnOnce() -> String) -> Check {
    require_as(Code::Unsupported, condition, message)
}

fn require_as(code: Code, condition: bool, message: impl FnOnce() -> String) -> Check {
    if condition {
        return Ok(());
    }
    let message = message();
    Err(Fault { code, message })
}

/// A tensor in its place in a node.
struct Operand<'a> {
    /// As in [`Operation::inputs`], without `?`.
    name: &'static str,
    kind: Kind,
    letters: &'static str,
    tensor: &'a Tensor,
}

const OUTPUT: &str = "output";

/// The inputs that are there, and the output last.
fn operands<'a>(graph: &Graph<'a>, node: &Node, operation: Operation) -> Check<Vec<Operand<'a>>> {
    let (names, shapes) = (operation.inputs(), shapes(operation));
    let extra = node.inputs[names.len()..].iter().position(|&t| t != ABSENT);
    require(extra.is_none(), || {
        format!(
            "takes {} inputs, but input {} is there",
            names.len(),
            names.len() + extra.unwrap_or(0)
        )
    })?;
    let mut found = Vec::with_capacity(shapes.len());
    let slots = names.iter().copied().zip(node.inputs).chain([(OUTPUT, node.output)]);
    for ((name, index), &(kind, letters)) in slots.zip(shapes) {
        let required = name.strip_suffix('?').is_none();
        let name = name.trim_end_matches('?');
        if index == ABSENT && !required {
            continue;
        }
        require(index != ABSENT, || format!("{name} is missing"))?;
        let tensor = graph.tensor(index).ok_or_else(|| Fault {
            code: Code::Invalid,
            message: format!("{name} is tensor {index} of {}", graph.tensors.len()),
        })?;
        found.push(Operand {
            name,
            kind,
            letters,
            tensor,
        });
    }
    Ok(found)
}

/// Whether a tensor is a proper view of a buffer of a proper role.
fn described(graph: &Graph<'_>, operand: &Operand<'_>) -> Check {
    let Operand { name, kind, tensor, .. } = *operand;
    let unknown = |what: &str, id: u32| Fault {
        code: Code::Unsupported,
        message: format!("{name} has {what} {id}, which is not known"),
    };
    let ty = tensor.kind().ok_or_else(|| unknown("type", tensor.ty))?;
    require(kind.types().contains(&ty), || {
        format!("{name} is {ty}, expected {}", list(kind.types()))
    })?;
    require_known(tensor.reserved == 0 && tensor.reserved2 == 0, || {
        format!("{name} has reserved words that are not 0")
    })?;
    let buffer = graph.buffers.get(tensor.buffer as usize).ok_or_else(|| Fault {
        code: Code::Invalid,
        message: format!("{name} lies in buffer {} of {}", tensor.buffer, graph.buffers.len()),
    })?;
    let role = Role::from_id(buffer.role).ok_or_else(|| unknown("a buffer of role", buffer.role))?;
    let symbol = Symbol::from_id(tensor.symbol).ok_or_else(|| unknown("symbol", tensor.symbol.into()))?;
    symbolic(graph, operand, symbol)?;
    strides(operand, ty)?;
    let end = tensor.extent().and_then(|e| e.checked_add(tensor.offset));
    require(end.is_some_and(|end| end <= buffer.bytes), || {
        let end = end.map_or("2^64 and more".into(), |e| e.to_string());
        format!(
            "{name} ends at byte {end} of buffer {}, which has {}",
            tensor.buffer, buffer.bytes
        )
    })?;
    let align = ty.block_bytes() as u64;
    require(
        role == Role::Weight || ty.is_quantized() || tensor.offset.is_multiple_of(align),
        || {
            format!(
                "{name} begins at byte {}, expected a multiple of {align}",
                tensor.offset
            )
        },
    )?;
    let fits = role_fits(operand, ty, role);
    require(fits, || {
        format!("{name} ({ty}) lies in a buffer of role {role:?}, where it cannot be")
    })
}

fn symbolic(graph: &Graph<'_>, Operand { name, tensor, .. }: &Operand<'_>, symbol: Symbol) -> Check {
    let maximum = match symbol {
        Symbol::None => {
            return require(!tensor.dims.contains(&0), || {
                format!("{name} has a dimension of 0: {:?}", tensor.dims)
            });
        }
        Symbol::Tokens => graph.tokens,
        Symbol::Rows => graph.rows,
    };
    let axis = usize::from(tensor.axis);
    require(axis < 4, || format!("{name} is symbolic along dimension {axis} of 4"))?;
    let found = tensor.dims[axis];
    require(found == maximum, || {
        format!("{name} has {found} for {symbol:?}, whose maximum is {maximum}")
    })?;
    let above = tensor.dims[axis + 1..].iter().all(|&d| d == 1);
    let below = !tensor.dims[..axis].contains(&0);
    require(above && below, || {
        format!(
            "{name} has dims {:?}: those above the symbolic {axis} must be 1, the others not 0",
            tensor.dims
        )
    })
}

fn strides(Operand { name, kind, tensor, .. }: &Operand<'_>, ty: Type) -> Check {
    let any_stride = match kind {
        Kind::Strided | Kind::Source => true,
        Kind::Table => ty == Type::F32,
        _ => false,
    };
    require(any_stride || tensor.is_dense(), || {
        format!(
            "{name} skips elements along dimension 0: stride {}, expected {}",
            tensor.strides[0],
            ty.block_bytes()
        )
    })?;
    let row = ty.row_bytes(tensor.dims[0].into());
    let row = row.filter(|&row| row <= i64::MAX as u64).ok_or_else(|| Fault {
        code: Code::Invalid,
        message: format!(
            "{name} has rows of {} values, no multiple of {ty}'s {}",
            tensor.dims[0],
            ty.block_values()
        ),
    })?;
    let whole_rows = *kind == Kind::Weight || *kind == Kind::Table && !any_stride;
    let unit = if whole_rows {
        row.max(1) as i64
    } else {
        ty.block_bytes() as i64
    };
    let first = if any_stride { 0 } else { 1 };
    let wrong = (first..4).find(|&i| tensor.dims[i] > 1 && (tensor.strides[i] <= 0 || tensor.strides[i] % unit != 0));
    require(wrong.is_none(), || {
        let i = wrong.unwrap_or(0);
        format!(
            "{name} has stride {} in dimension {i}, expected a positive multiple of {unit}",
            tensor.strides[i]
        )
    })
}

fn role_fits(operand: &Operand<'_>, ty: Type, role: Role) -> bool {
    let fixed = matches!(role, Role::Weight | Role::Constant);
    match operand.kind {
        Kind::Pool => role == Role::Pool,
        Kind::Weight => fixed,
        _ if operand.name == OUTPUT => !fixed && role != Role::Input,
        Kind::Table => fixed || ty == Type::F32,
        _ => true,
    }
}

/// The size of a dimension, and the symbol that gives it in a step.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Extent {
    size: u32,
    symbol: Symbol,
}

impl Extent {
    const ONE: Extent = Extent {
        size: 1,
        symbol: Symbol::None,
    };

    fn of(tensor: &Tensor, dim: usize) -> Extent {
        let symbol = Symbol::from_id(tensor.symbol).filter(|_| usize::from(tensor.axis) == dim);
        Extent {
            size: tensor.dims[dim],
            symbol: symbol.unwrap_or(Symbol::None),
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.symbol {
            Symbol::None => write!(f, "{}", self.size),
            Symbol::Tokens => write!(f, "T (up to {})", self.size),
            Symbol::Rows => write!(f, "R (up to {})", self.size),
        }
    }
}

/// The size that each letter has in a node, and the operand that it was first found in.
struct Sizes(Vec<(char, Extent, &'static str)>);

impl Sizes {
    fn of(operands: &[Operand<'_>]) -> Check<Sizes> {
        let mut sizes = Sizes(Vec::new());
        for optional in [false, true] {
            for operand in operands {
                let padded = operand.letters.split(' ').chain(["1"; 4]).take(4).enumerate();
                for (dim, letter) in padded.filter(|(_, l)| l.ends_with('?') == optional) {
                    sizes.unify(operand, dim, letter)?;
                }
            }
        }
        Ok(sizes)
    }

    fn unify(&mut self, operand: &Operand<'_>, dim: usize, letter: &'static str) -> Check {
        let (name, found) = (operand.name, Extent::of(operand.tensor, dim));
        let key = letter.chars().next().unwrap_or('1');
        let fixed = found.symbol == Symbol::None || SYMBOLIC.contains(key);
        require(fixed, || {
            format!("{name} is symbolic along dimension {dim}, which must be fixed")
        })?;
        let (expected, source) = match key {
            '*' => return Ok(()),
            '1' => (Extent::ONE, ""),
            _ => match self.0.iter().find(|(c, ..)| *c == key) {
                Some(&(_, extent, source)) => (extent, source),
                None => {
                    self.0.push((key, found, name));
                    return Ok(());
                }
            },
        };
        let broadcast = letter.ends_with('?') && found == Extent::ONE;
        require(found == expected || broadcast, || {
            let or_one = if letter.ends_with('?') { " or 1" } else { "" };
            let reason = if source.is_empty() {
                String::new()
            } else {
                format!(" as in {source}")
            };
            format!("{name} has {found} in dimension {dim}, expected {expected}{or_one}{reason}")
        })
    }

    fn size(&self, letter: char) -> u32 {
        self.0
            .iter()
            .find(|(c, ..)| *c == letter)
            .map_or(0, |(_, extent, _)| extent.size)
    }
}

/// What the tables say beyond equal sizes.
fn further_rules(operation: Operation, node: &Node, operands: &[Operand<'_>], sizes: &Sizes) -> Check {
    let size = |letter| sizes.size(letter);
    match operation {
        Operation::Rope | Operation::NormRope => require(2 * u64::from(size('f')) <= size('D').into(), || {
            format!(
                "freq has {} frequencies, but x only {} entries a head",
                size('f'),
                size('D')
            )
        }),
        Operation::Attention => {
            let (heads, kv) = (size('H'), size('h'));
            require(heads.is_multiple_of(kv), || {
                format!("q has {heads} heads, no multiple of k's {kv}")
            })?;
            let (starts, sequences) = (size('s'), size('S'));
            require(starts.checked_sub(1) == Some(sequences), || {
                format!("starts has {starts} entries, expected one more than table's {sequences} sequences")
            })
        }
        Operation::TopK => require(size('k') <= size('n'), || {
            format!("output asks for {} of x's {} entries", size('k'), size('n'))
        }),
        Operation::Combine => require(node.input(1).is_some() || size('J') == 1, || {
            format!(
                "without c there is one sum, but output has {} in dimension 1",
                size('J')
            )
        }),
        Operation::Products => products(node, operands),
        Operation::Copy => {
            let [x, output] = [0, 1].map(|i| operands[i].tensor.ty == Type::I32.id());
            require(x == output, || "x and output are both I32, or neither".into())
        }
        _ => Ok(()),
    }
}

fn products(node: &Node, operands: &[Operand<'_>]) -> Check {
    let absent = |i: usize| node.input(i).is_none();
    for i in 1..=4 {
        let (w, b) = (2 * i - 1, 2 * i);
        require(!absent(w) || absent(b), || format!("b{i} is there without w{i}"))?;
        require(absent(w) || i == 1 || !absent(w - 2), || {
            format!("w{i} is there without w{}", i - 1)
        })?;
    }
    let weights = operands.iter().filter(|o| o.kind == Kind::Weight);
    let sum: u64 = weights.map(|w| u64::from(w.tensor.dims[1])).sum();
    let rows = operands.last().map_or(0, |output| output.tensor.dims[0]);
    require(sum == u64::from(rows), || {
        format!("output has {rows} in dimension 0, but the weights have {sum} rows")
    })
}

fn words(operation: Operation, node: &Node) -> Check {
    let known = parameters(operation);
    for (i, (parameter, &value)) in known.iter().zip(&node.params).enumerate() {
        match parameter {
            Word::Count => {}
            Word::Number => require(!node.f32(i).is_nan(), || format!("parameter word {i} is not a number"))?,
            Word::Choice(what, known) => require_known(known(value), || format!("{what} {value} is not known"))?,
        }
    }
    let unknown = (known.len()..node.params.len()).find(|&i| node.params[i] != 0);
    require_known(unknown.is_none(), || {
        format!(
            "parameter word {} is not 0, and has no meaning here",
            unknown.unwrap_or(0)
        )
    })?;
    if operation != Operation::Attention {
        return Ok(());
    }
    let windowed = node.params[word::attention::WINDOW_KIND] != Window::Full as u32;
    require(!windowed || node.params[word::attention::WINDOW] > 0, || {
        "the window has no positions".into()
    })?;
    let by_position = node.f32(word::attention::BETA) != 0.0;
    require(!by_position || node.params[word::attention::SPAN] > 0, || {
        "beta stands without a span".into()
    })
}

/// An output is written in place of an input that its row names, or shares no byte with any.
fn aliasing(operation: Operation, operands: &[Operand<'_>]) -> Check {
    let Some((output, inputs)) = operands.split_last() else {
        return Ok(());
    };
    require(!overlaps_itself(output.tensor), || {
        "elements of output share bytes with each other".into()
    })?;
    inputs.iter().try_for_each(|input| {
        let replaced = in_place(operation).contains(&input.name) && same_view(input.tensor, output.tensor);
        require(replaced || !overlap(input.tensor, output.tensor), || {
            format!(
                "output shares bytes with {}, and is not that same view in place of an input that it may replace",
                input.name
            )
        })
    })
}

/// Whether two tensors describe the same elements in the same way.
fn same_view(a: &Tensor, b: &Tensor) -> bool {
    let strides = (0..4).all(|i| a.dims[i] <= 1 || a.strides[i] == b.strides[i]);
    let place = (a.buffer, a.offset, a.ty) == (b.buffer, b.offset, b.ty);
    place && strides && (0..4).all(|i| Extent::of(a, i) == Extent::of(b, i))
}

fn list(types: &[Type]) -> String {
    types.iter().map(|t| t.name()).collect::<Vec<_>>().join(", ")
}
