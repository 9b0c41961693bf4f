//! Running one case: what planning says, every step against the reference, and the columns' independence.

use std::collections::BTreeMap;

use super::{
    case::{Case, Columns, Moment},
    compare::{Errors, Images, Runs, compare, gather},
    image::{Content, Garbage, bytes_of_i32, litter},
    memory::{Memory, Path},
    report::Verdict,
    session::{Compiled, Guarded, Session, failed},
};
use crate::{
    contract::Binding,
    graph::{Buffer, Graph, Role, Step, Symbol, Tensor},
    reference,
};

/// Why a case ends early.
enum Stop {
    Refused(String),
    Failed(String),
}

impl From<String> for Stop {
    fn from(message: String) -> Stop {
        Stop::Failed(message)
    }
}

/// Runs a case on a device.
pub(super) fn run_case(session: &Session, case: &Case) -> Verdict {
    match attempt(session, case) {
        Ok(Errors { error, bound }) => Verdict::Passed { error, bound },
        Err(Stop::Refused(reason)) => Verdict::Refused(reason),
        Err(Stop::Failed(reason)) => Verdict::Failed(reason),
    }
}

fn attempt(session: &Session, case: &Case) -> Result<Errors, Stop> {
    let workspace = plan(session, case)?;
    let steps = expectations(case)?;
    let mut worst = Errors::default();
    for path in Path::of(session, case) {
        let mut prepared = Prepared::new(session, case, path, workspace, &steps)?;
        for (moment, (before, expected)) in case.moments.iter().zip(&steps) {
            let got = prepared.run(moment.step, before)?;
            let runs = Runs {
                before,
                expected,
                got: &got,
            };
            worst.take(compare(case, &moment.step, &runs).map_err(|e| path.explain(e))?);
        }
        if let Some(columns) = &case.columns {
            independent(&mut prepared, case, columns)?;
        }
        prepared.finish()?;
    }
    Ok(worst)
}

/// Asks the planning queries, twice: whether the nodes are served, and the largest workspace.
fn plan(session: &Session, case: &Case) -> Result<u64, Stop> {
    let graph = case.draft.graph();
    let first = answers(session, &graph)?;
    if answers(session, &graph)? != first {
        return Err(Stop::Failed(
            "supports or workspace answers differently when asked again".into(),
        ));
    }
    let smaller = case.draft.tokens.max(case.draft.rows) / 2;
    if smaller > 0 && answers_for(session, case, smaller).is_some_and(|less| less > first) {
        return Err(Stop::Failed(format!(
            "workspace says {first} bytes for T = {}, but more for T = {smaller}: it is to be the maximum over every T′ ≤ T",
            case.draft.tokens
        )));
    }
    Ok(first)
}

/// The largest workspace of a graph's nodes, if all of them are supported.
fn answers(session: &Session, graph: &Graph<'_>) -> Result<u64, Stop> {
    let mut workspace = 0;
    for node in 0..graph.nodes.len() as u32 {
        match session.module.supports()(&session.info, graph, node).into_result() {
            Ok(()) => {}
            Err(e) if e.is_refusal() => return Err(Stop::Refused(e.message.into())),
            Err(e) => return Err(Stop::Failed(format!("supports neither serves nor refuses it: {e}"))),
        }
        let bytes = session.module.workspace()(&session.info, graph, node).into_result();
        workspace = workspace.max(bytes.map_err(failed("workspace of a supported node"))?);
    }
    Ok(workspace)
}

/// The workspace of the same case with T and R of at most `most`, where it is supported.
fn answers_for(session: &Session, case: &Case, most: u32) -> Option<u64> {
    let (tokens, rows) = (case.draft.tokens.min(most), case.draft.rows.min(most));
    let shrink = |tensor: &Tensor| {
        let step = Step {
            tokens,
            rows,
            ..Step::default()
        };
        Tensor {
            dims: tensor.dims_in(&step),
            ..*tensor
        }
    };
    let tensors: Vec<Tensor> = case.draft.tensors.iter().map(shrink).collect();
    answers(
        session,
        &Graph::new(&tensors, &case.draft.nodes, &case.draft.buffers, tokens, rows),
    )
    .ok()
}

/// Memory before each step, and after the reference's.
fn expectations(case: &Case) -> Result<Vec<(Vec<Vec<u8>>, Vec<Vec<u8>>)>, String> {
    let expect = |(i, moment): (usize, &Moment)| {
        let garbage = [Garbage::NotNumbers, Garbage::Numbers][i % 2];
        let before = images(case, moment, garbage);
        let mut after = before.clone();
        let done = reference::run(&case.draft.graph(), &mut after, &moment.step);
        done.map_err(|e| format!("the suite's own case is malformed, the reference says: {e}"))?;
        Ok((before, after))
    };
    case.moments.iter().enumerate().map(expect).collect()
}

/// What all buffers hold before a step.
fn images(case: &Case, moment: &Moment, garbage: Garbage) -> Vec<Vec<u8>> {
    let empty = |(i, buffer): (usize, &Buffer)| {
        let mut image = vec![0; buffer.bytes as usize];
        let fixed = buffer.role <= Role::Constant as u32;
        litter(if fixed { Garbage::NotNumbers } else { garbage }, i as u64, &mut image);
        image
    };
    let mut images: Vec<Vec<u8>> = case.draft.buffers.iter().enumerate().map(empty).collect();
    for content in case.contents_at(moment) {
        let tensor = case.tensor(content.tensor);
        content.place(tensor, &moment.step, &mut images[tensor.buffer as usize]);
    }
    images
}

/// A compiled case with all of its memory.
struct Prepared<'a> {
    session: &'a Session,
    program: Compiled<'a>,
    buffers: Vec<Memory<'a>>,
    workspace: Guarded<'a>,
    scratch: Vec<u8>,
}

impl<'a> Prepared<'a> {
    fn new(
        session: &'a Session,
        case: &Case,
        path: Path,
        workspace: u64,
        steps: &[(Vec<Vec<u8>>, Vec<Vec<u8>>)],
    ) -> Result<Prepared<'a>, String> {
        let first = steps.iter().take(1).flat_map(|(before, _)| before);
        let buffers = first.zip(&case.wholes);
        let buffers: Result<_, _> = buffers
            .map(|(image, w)| Memory::new(session, path, w.as_ref(), image))
            .collect();
        let program = session.compile(&case.draft.graph())?;
        let needs = session
            .device
            .needs(program.id)
            .into_result()
            .map_err(failed("needs"))?;
        if needs.workspace != workspace {
            return Err(format!(
                "the program needs a workspace of {} bytes; the largest that planning said is {workspace}",
                needs.workspace
            ));
        }
        let mut scratch = vec![0; workspace as usize];
        litter(Garbage::NotNumbers, 0x5c7a, &mut scratch);
        let workspace = Guarded::new(session, scratch.len(), session.rules.alignment)?;
        Ok(Prepared {
            session,
            program,
            buffers: buffers?,
            workspace,
            scratch,
        })
    }

    /// One step over fresh contents: what memory holds after it.
    fn run(&mut self, step: Step, before: &Images) -> Result<Vec<Vec<u8>>, String> {
        for (memory, image) in self.buffers.iter_mut().zip(before) {
            memory.write(image)?;
        }
        self.workspace.write(&self.scratch)?;
        let bindings: Vec<Binding> = self.buffers.iter().map(Memory::binding).collect();
        self.session
            .run(self.program.id, &bindings, self.workspace.binding(), step)?;
        self.workspace.read().map_err(|e| format!("workspace: {e}"))?;
        let read = |(i, (memory, image)): (usize, (&Memory, &Vec<u8>))| {
            memory.read(image).map_err(|e| format!("buffer {i}: {e}"))
        };
        self.buffers.iter().zip(before).enumerate().map(read).collect()
    }

    /// Weights are as they were.
    fn finish(&self) -> Result<(), String> {
        self.buffers.iter().try_for_each(Memory::finish)
    }
}

/// Cases of more columns than this are not taken apart: the contract promises it up to 8, and they cost too much.
const MOST_ALIKE: u32 = 9;

/// Whether the columns are those of T or of R.
fn column_symbol(case: &Case) -> u8 {
    case.outputs
        .first()
        .map_or(0, |(output, _)| case.tensor(*output).symbol)
}

/// The columns of up to 8 that run together have the bits that they have in any other company and place.
fn independent(prepared: &mut Prepared, case: &Case, columns: &Columns) -> Result<(), String> {
    let Some(moment) = case.moments.first() else {
        return Ok(());
    };
    let n = match column_symbol(case) == Symbol::Rows as u8 {
        true => moment.step.rows,
        false => moment.step.tokens,
    };
    if n > MOST_ALIKE {
        return Ok(());
    }
    let n = n.min(8);
    let mut alone: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
    for (i, chosen) in selections(n, columns.starts.is_none()).iter().enumerate() {
        let moment = select(case, moment, columns, chosen);
        let before = images(case, &moment, [Garbage::NotNumbers, Garbage::Numbers][i % 2]);
        let got = prepared.run(moment.step, &before)?;
        for (place, &column) in chosen.iter().enumerate() {
            let bits = column_of(case, &moment.step, &got, place);
            if *alone.entry(column).or_insert_with(|| bits.clone()) != bits {
                return Err(format!(
                    "column {column} has other bits at place {place} of {} columns than alone",
                    chosen.len()
                ));
            }
        }
    }
    Ok(())
}

/// Each column alone; then the first ones together, last ones, and where the order is free, reversed and repeated ones.
fn selections(n: u32, free: bool) -> Vec<Vec<u32>> {
    let mut all: Vec<Vec<u32>> = (0..n).map(|c| vec![c]).collect();
    all.extend((2..=n).map(|m| (0..m).collect()));
    all.extend([1, n / 2].into_iter().filter(|&m| m > 0).map(|m| (m..n).collect()));
    if free {
        all.push((0..n).rev().collect());
        all.push(vec![0; n as usize]);
    }
    all
}

/// A step of these columns of another.
fn select(case: &Case, moment: &Moment, columns: &Columns, chosen: &[u32]) -> Moment {
    let symbol = column_symbol(case);
    let of_columns = |content: &&Content| case.tensor(content.tensor).symbol == symbol;
    let pick = |content: &Content| content.select(case.tensor(content.tensor), chosen);
    let mut contents: Vec<Content> = case.contents_at(moment).filter(of_columns).map(pick).collect();
    if let Some((starts, sequences)) = &columns.starts {
        let before = |s: u32| chosen.iter().filter(|&&c| sequences[c as usize] < s).count() as i32;
        let count = case.draft.tensors[*starts as usize].dims[0];
        let values: Vec<i32> = (0..count).map(before).collect();
        contents.push(Content::new(*starts, bytes_of_i32(&values)));
    }
    let others = moment.contents.iter();
    let missing: Vec<Content> = others
        .filter(|c| contents.iter().all(|own| own.tensor != c.tensor))
        .cloned()
        .collect();
    contents.extend(missing);
    let position = |&c: &u32| columns.positions.get(c as usize).copied().unwrap_or(0);
    let n = chosen.len() as u32;
    let of_rows = symbol == Symbol::Rows as u8;
    Moment {
        step: Step {
            tokens: if of_rows { moment.step.tokens } else { n },
            rows: if of_rows { n } else { moment.step.rows.min(n) },
            context: 1 + chosen.iter().map(position).max().unwrap_or(0),
            ..moment.step
        },
        contents,
    }
}

/// One column of every output.
fn column_of(case: &Case, step: &Step, images: &Images, place: usize) -> Vec<Vec<u8>> {
    let column = |&(output, _): &(u32, _)| {
        let tensor = case.tensor(output);
        let all = gather(tensor, step, &images[tensor.buffer as usize]);
        let columns = if tensor.symbol == Symbol::Rows as u8 {
            step.rows
        } else {
            step.tokens
        };
        let size = all.len() / columns as usize;
        all[place * size..(place + 1) * size].to_vec()
    };
    case.outputs.iter().map(column).collect()
}
