//! What the suite found.

use std::collections::BTreeMap;

use crate::{operations::Operation, types::Type};

/// What became of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All of it holds.
    Passed {
        /// The largest error of an output, measured as its accuracy class is: a normalized mean squared error, or 0 for
        /// equal bits.
        error: f64,
        /// What that error may be at most.
        bound: f64,
    },
    /// `supports` said no, for this reason.
    Refused(String),
    /// It breaks the contract, in this way.
    Failed(String),
}

/// A case and its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseReport {
    /// The operation; absent for the duties of a device as a whole.
    pub operation: Option<Operation>,
    /// The type that tells the operation's kernels apart: of the weights, the table, the cache or the copied values;
    /// F32 for the others.
    pub ty: Option<Type>,
    /// What the case is: `product Q4_K K=288 M=5 T=7 strided output`.
    pub label: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// How many cases passed, were refused and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that `supports` refused.
    pub refused: usize,
    /// Cases that break the contract.
    pub failed: usize,
}

impl Tally {
    fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed { .. } => self.passed += 1,
            Verdict::Refused(_) => self.refused += 1,
            Verdict::Failed(_) => self.failed += 1,
        }
    }
}

/// All that the suite found, in the order in which it ran.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The backend's name.
    pub backend: String,
    /// The device's name.
    pub device: String,
    /// Every case.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// Whether nothing failed. Refusals are no failures.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|c| matches!(c.verdict, Verdict::Failed(_)))
    }

    /// Counts over all cases.
    pub fn total(&self) -> Tally {
        let mut tally = Tally::default();
        self.cases.iter().for_each(|c| tally.count(&c.verdict));
        tally
    }

    /// Counts for each operation and type; the duties of the device have neither.
    pub fn table(&self) -> BTreeMap<(Option<Operation>, Option<Type>), Tally> {
        let mut table: BTreeMap<_, Tally> = BTreeMap::new();
        for case in &self.cases {
            table.entry((case.operation, case.ty)).or_default().count(&case.verdict);
        }
        table
    }

    /// The reasons of refusals, each with the number of cases that it stands for.
    pub fn refusals(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for case in &self.cases {
            if let Verdict::Refused(reason) = &case.verdict {
                *reasons.entry(reason.as_str()).or_default() += 1;
            }
        }
        reasons
    }
}
