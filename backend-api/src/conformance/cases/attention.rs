//! Cases of `attention`: caches of several sequences in shuffled pages, windows, and what bends the scores.

use super::{Cases, products::suffix, word};
use crate::{
    conformance::{
        case::{Accuracy, Builder, Columns, E, H, PLAIN, Q, VIEWS, fixed, tokens, wanted},
        image::{Content, bytes_of_i32},
    },
    graph::{ABSENT, Role, Step},
    operations::{Operation, Precision, Window},
    types::Type,
};

/// The sizes and parameters of a case.
#[derive(Clone)]
struct Scene {
    hd: u32,
    heads: u32,
    kv: u32,
    page: u32,
    /// Sequences' (earlier tokens, tokens of this step).
    sequences: Vec<(u32, u32)>,
    window: Window,
    w: u32,
    softcap: f32,
    beta: f32,
    sinks: bool,
    precision: Precision,
    /// Whether the columns are the wanted ones, R in place of T.
    wanted: bool,
}

impl Default for Scene {
    fn default() -> Scene {
        Scene {
            hd: 64,
            heads: 4,
            kv: 2,
            page: 16,
            sequences: vec![(21, 3), (0, 0), (5, 4)],
            window: Window::Full,
            w: 0,
            softcap: 0.0,
            beta: 0.0,
            sinks: false,
            precision: Precision::OfType,
            wanted: false,
        }
    }
}

impl Scene {
    fn columns(&self) -> u32 {
        self.sequences.iter().map(|(_, new)| new).sum()
    }

    fn label(&self) -> String {
        let Scene {
            hd,
            heads,
            kv,
            page,
            sequences,
            ..
        } = self;
        let what = if self.wanted { "R" } else { "T" };
        let mut label = format!(
            "hd={hd} H={heads} Hkv={kv} P={page} {what}={} past+new=",
            self.columns()
        );
        label += &sequences
            .iter()
            .map(|(p, n)| format!("{p}+{n}"))
            .collect::<Vec<_>>()
            .join(",");
        if self.window != Window::Full {
            label += &format!(" {:?} W={}", self.window, self.w);
        }
        for (on, name) in [
            (self.softcap != 0.0, " softcap"),
            (self.beta != 0.0, " β"),
            (self.sinks, " sinks"),
        ] {
            label += if on { name } else { "" };
        }
        label + suffix(self.precision)
    }

    /// The first position that position `p` sees.
    fn low(&self, p: u32) -> u32 {
        match self.window {
            Window::Full => 0,
            Window::Sliding => (p + 1).saturating_sub(self.w),
            Window::Chunked => p - p % self.w,
        }
    }

    fn class(&self, ty: Type) -> f64 {
        match (ty, self.precision) {
            (Type::F32, _) | (_, Precision::Exact) => E,
            (Type::F16, _) => H,
            _ => Q,
        }
    }

    /// (sequence, position) of each column.
    fn places(&self) -> Vec<(u32, u32)> {
        let of = |(s, &(past, new)): (usize, &(u32, u32))| (past..past + new).map(move |p| (s as u32, p));
        self.sequences.iter().enumerate().flat_map(of).collect()
    }
}

/// Head sizes, ratios of heads, pages, windows and the rest: each varied by itself, some together.
fn scenes() -> Vec<Scene> {
    let base = Scene::default;
    let several = |changes: Vec<Scene>| changes;
    let mut all = several(vec![
        base(),
        Scene {
            sequences: vec![(0, 1)],
            ..base()
        },
        Scene {
            sequences: vec![(0, 33)],
            ..base()
        },
        Scene {
            sequences: vec![(300, 1)],
            hd: 128,
            ..base()
        },
        Scene {
            sequences: vec![(15, 1), (16, 1), (31, 1), (100, 1), (0, 1)],
            ..base()
        },
        Scene {
            hd: 256,
            heads: 2,
            kv: 1,
            ..base()
        },
        Scene {
            hd: 32,
            heads: 3,
            kv: 3,
            ..base()
        },
        Scene {
            hd: 96,
            heads: 8,
            kv: 1,
            ..base()
        },
        Scene {
            heads: 14,
            kv: 2,
            page: 32,
            ..base()
        },
        Scene {
            page: 64,
            sequences: vec![(70, 5), (0, 2)],
            ..base()
        },
        Scene {
            page: 256,
            sequences: vec![(250, 9)],
            ..base()
        },
        Scene {
            window: Window::Sliding,
            w: 1,
            ..base()
        },
        Scene {
            window: Window::Sliding,
            w: 7,
            ..base()
        },
        Scene {
            window: Window::Sliding,
            w: 20,
            sequences: vec![(90, 9), (3, 4), (60, 1)],
            ..base()
        },
        Scene {
            window: Window::Sliding,
            w: 16,
            sequences: vec![(47, 33)],
            ..base()
        },
        Scene {
            sinks: true,
            sequences: vec![(2, 3), (0, 1)],
            ..base()
        },
        Scene {
            sinks: true,
            window: Window::Sliding,
            w: 5,
            ..base()
        },
        Scene { softcap: 2.0, ..base() },
        Scene {
            beta: 0.5,
            sequences: vec![(6, 9), (40, 2)],
            ..base()
        },
        Scene {
            softcap: 1.5,
            beta: 0.3,
            sinks: true,
            window: Window::Sliding,
            w: 9,
            ..base()
        },
        Scene {
            wanted: true,
            sequences: vec![(20, 1), (0, 0), (33, 2)],
            ..base()
        },
        Scene {
            sequences: vec![(1100, 4), (517, 4)],
            hd: 32,
            heads: 2,
            kv: 1,
            page: 64,
            ..base()
        },
        Scene {
            window: Window::Sliding,
            w: 600,
            sequences: vec![(1290, 3), (700, 5)],
            hd: 32,
            heads: 2,
            kv: 1,
            page: 64,
            ..base()
        },
    ]);
    let exact = [
        Scene { sinks: true, ..base() },
        Scene {
            sequences: vec![(300, 9)],
            hd: 128,
            ..base()
        },
    ];
    all.extend(exact.map(|s| Scene {
        precision: Precision::Exact,
        ..s
    }));
    all
}

pub(super) fn attention(cases: &mut Cases) {
    for ty in cases.types(&Type::CACHE) {
        for scene in scenes() {
            cases.add(ty, &scene.label(), &[PLAIN], |b| attended(b, &scene));
        }
        // Not required of a backend: heads of 8, chunks.
        if !ty.is_quantized() {
            let scene = Scene {
                hd: 8,
                ..Scene::default()
            };
            cases.add(ty, &scene.label(), &[PLAIN], |b| attended(b, &scene));
        }
        let scene = Scene {
            window: Window::Chunked,
            w: 6,
            ..Scene::default()
        };
        cases.add(ty, &scene.label(), &[PLAIN], |b| attended(b, &scene));
        let scene = Scene {
            window: Window::Sliding,
            w: 10,
            ..Scene::default()
        };
        cases.add(ty, &scene.label(), &VIEWS, |b| attended(b, &scene));
        let scene = Scene {
            sequences: vec![(17, 5), (2, 2)],
            ..Scene::default()
        };
        let label = format!("{} after stores", scene.label());
        cases.add(ty, &label, &[PLAIN], |b| stored_and_attended(b, &scene));
    }
}

/// The page of each (sequence, block of positions), and how many pages there are.
struct Pages {
    of: Vec<Vec<u32>>,
    count: u32,
    /// Entries of a sequence in the table: more than any needs.
    blocks: u32,
}

fn pages(b: &mut Builder, scene: &Scene) -> Pages {
    let blocks_of = |&(past, new): &(u32, u32)| (past + new).div_ceil(scene.page);
    let count = 2 + scene.sequences.iter().map(blocks_of).sum::<u32>();
    let mut free = b.random.shuffled(count).into_iter();
    let take = |s: &(u32, u32)| free.by_ref().take(blocks_of(s) as usize).collect();
    let of = scene.sequences.iter().map(take).collect();
    let blocks = 1 + scene.sequences.iter().map(blocks_of).max().unwrap_or(0);
    Pages { of, count, blocks }
}

/// The table: −1 for pages that no column of the step sees any more, nonsense past a sequence's end.
fn table(scene: &Scene, pages: &Pages) -> Vec<i32> {
    let mut all = Vec::new();
    for (&(past, _), own) in scene.sequences.iter().zip(&pages.of) {
        let first = scene.low(past) / scene.page;
        let entry = |block: u32| match own.get(block as usize) {
            Some(_) if block < first => -1,
            Some(&page) => page as i32,
            None => i32::MAX,
        };
        all.extend((0..pages.blocks).map(entry));
    }
    all
}

/// Which rows of a pool `[hd, P, Hkv, pages]` some column of the step sees; all others are garbage.
fn visible(scene: &Scene, pages: &Pages) -> Vec<bool> {
    let mut rows = vec![false; (scene.page * scene.kv * pages.count) as usize];
    for (&(past, new), own) in scene.sequences.iter().zip(&pages.of) {
        for p in (scene.low(past)..past + new).filter(|_| new > 0) {
            for head in 0..scene.kv {
                let page = own[(p / scene.page) as usize];
                rows[((page * scene.kv + head) * scene.page + p % scene.page) as usize] = true;
            }
        }
    }
    rows
}

/// The tensors that say where columns and cells are.
struct Where {
    positions: u32,
    starts: u32,
    table: u32,
}

fn starts_of(sequences: &[(u32, u32)]) -> Vec<i32> {
    let sum = |n: usize| sequences[..n].iter().map(|(_, new)| *new as i32).sum();
    (0..=sequences.len()).map(sum).collect()
}

fn whereabouts(b: &mut Builder, scene: &Scene, pages: &Pages) -> Where {
    let positions: Vec<i32> = scene.places().iter().map(|(_, p)| *p as i32).collect();
    let columns = scene.columns();
    let shape = if scene.wanted {
        wanted(&[columns])
    } else {
        tokens(&[columns])
    };
    let sequences = scene.sequences.len() as u32;
    Where {
        positions: b.numbers(shape, &positions),
        starts: b.numbers(fixed(&[sequences + 1]), &starts_of(&scene.sequences)),
        table: b.numbers(fixed(&[pages.blocks, sequences]), &table(scene, pages)),
    }
}

fn pool(b: &mut Builder, scene: &Scene, pages: &Pages) -> u32 {
    let ty = b.ty();
    // Dims 1 and 2 of a pool the other way round are as good as any other strides.
    let layout = b.variant.inputs;
    b.tensor(
        Role::Pool,
        ty,
        fixed(&[scene.hd, scene.page, scene.kv, pages.count]),
        layout,
    )
}

fn filled_pool(b: &mut Builder, scene: &Scene, pages: &Pages) -> u32 {
    let tensor = pool(b, scene, pages);
    let bytes = b
        .random
        .values(b.ty(), (scene.hd * scene.page * scene.kv * pages.count) as usize);
    b.fill_rows(tensor, bytes, visible(scene, pages));
    tensor
}

fn attended(b: &mut Builder, scene: &Scene) {
    let pages = pages(b, scene);
    let (hd, heads, columns) = (scene.hd, scene.heads, scene.columns());
    let dims = [hd, heads, columns];
    let shape = if scene.wanted { wanted(&dims) } else { tokens(&dims) };
    let q = b.input(shape);
    let (k, v) = (filled_pool(b, scene, &pages), filled_pool(b, scene, &pages));
    let at = whereabouts(b, scene, &pages);
    let sinks = if scene.sinks { b.vector(heads) } else { ABSENT };
    let output = b.output(shape);
    b.node(
        &[q, k, v, at.positions, at.starts, at.table, sinks],
        output,
        &params(scene),
    );
    b.check(output, Accuracy::Within(scene.class(b.ty())));
    moments(b, scene, at.starts);
    let (sequences, positions) = scene.places().into_iter().unzip();
    b.independent(Columns {
        starts: Some((at.starts, sequences)),
        positions,
    });
}

fn params(scene: &Scene) -> [u32; 7] {
    let scale = 1.5 / (scene.hd as f32).sqrt();
    let span = if scene.beta == 0.0 { 0 } else { 8 };
    [
        word(scale),
        word(scene.softcap),
        scene.window as u32,
        scene.w,
        word(scene.beta),
        span,
        scene.precision as u32,
    ]
}

/// All columns; then all but some of the last, by starts that end earlier; then none.
fn moments(b: &mut Builder, scene: &Scene, starts: u32) {
    let columns = scene.columns();
    let mut counts = vec![columns, columns.div_ceil(2), 0];
    counts.dedup();
    for n in counts {
        let ends: Vec<i32> = starts_of(&scene.sequences).iter().map(|&s| s.min(n as i32)).collect();
        let seen = scene.places().into_iter().take(n as usize).map(|(_, p)| p + 1).max();
        let step = Step {
            tokens: n,
            rows: if scene.wanted { n } else { n.min(1) },
            context: seen.unwrap_or(0),
            reserved: 0,
        };
        b.moment(step, vec![Content::new(starts, bytes_of_i32(&ends))]);
    }
}

/// The step's own keys and values come by two stores, as in a layer of a model.
fn stored_and_attended(b: &mut Builder, scene: &Scene) {
    let pages = pages(b, scene);
    let (hd, heads, columns) = (scene.hd, scene.heads, scene.columns());
    let q = b.input(tokens(&[hd, heads, columns]));
    let slot =
        |(s, p): &(u32, u32)| (pages.of[*s as usize][(p / scene.page) as usize] * scene.page + p % scene.page) as i32;
    let slots: Vec<i32> = scene.places().iter().map(slot).collect();
    let slots = b.numbers(tokens(&[columns]), &slots);
    let pools = [0; 2].map(|_| {
        let x = b.input(tokens(&[hd, scene.kv, columns]));
        let pool = filled_pool(b, scene, &pages);
        b.other_node(Operation::CacheStore, &[x, slots], pool, &[]);
        pool
    });
    let at = whereabouts(b, scene, &pages);
    let output = b.output(tokens(&[hd, heads, columns]));
    let inputs = [q, pools[0], pools[1], at.positions, at.starts, at.table];
    b.node(&inputs, output, &params(scene));
    // A code that is off by 1 is an error of the store; it is of the size that class Q allows.
    let class = if b.ty().is_quantized() {
        Q * 3.0
    } else {
        scene.class(b.ty())
    };
    b.check(output, Accuracy::Within(class));
    moments(b, scene, at.starts);
}
