//! The conformance suite: anybody's backend against the reference.
//!
//! [`check`] runs each operation with each type that it may have over small, odd and larger shapes, views, in place
//! and with steps shorter than the graph's T, on one device of a backend, and compares every byte that the device left
//! in memory: outputs within the accuracy class of the operation, all else unchanged. What the backend refuses in
//! `supports` is counted and no failure. A new operation is a new generator in `cases`.

mod case;
mod cases;
mod compare;
mod duties;
mod image;
mod memory;
mod random;
mod report;
mod runner;
mod session;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use crate::{
    contract::{BackendModule, DeviceInfo, HostServices, OpenOptions},
    error::{BackendError, Result},
    operations::Operation,
    types::Type,
};

use case::Case;
use session::Session;

pub use report::{CaseReport, Report, Tally, Verdict};

/// What to check, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Inputs are drawn from it: a failure is repeated by the same seed.
    pub seed: u64,
    /// The operations to check; all of them, and the duties of the device as a whole, where it is absent.
    pub operations: Option<Vec<Operation>>,
    /// The types to check, of the operations that have several; all where it is absent.
    pub types: Option<Vec<Type>>,
    /// What to ask of the device when it is opened.
    pub open: OpenOptions,
}

impl Options {
    fn wants(&self, ty: Type) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(&ty))
    }
}

/// Checks device `device` of a backend; `progress` sees each case as it ends.
///
/// # Errors
/// The backend's own where the device is not there, or cannot be opened. A breach of the contract after that is a
/// failed case of the report.
pub fn check(
    module: BackendModule,
    services: HostServices,
    device: u32,
    options: &Options,
    progress: &mut dyn FnMut(&CaseReport),
) -> Result<Report> {
    let session = open(module, services, device, options)?;
    let report = Report {
        backend: module.name().to_string(),
        device: session.info.name.to_string(),
        cases: Vec::new(),
    };
    let mut suite = Suite {
        session: &session,
        options,
        report,
        progress,
    };
    if options.operations.is_none() {
        suite.device();
    }
    let chosen = options.operations.as_deref().unwrap_or(&Operation::ALL);
    chosen.iter().for_each(|&operation| suite.operation(operation));
    Ok(suite.report)
}

fn open(module: BackendModule, services: HostServices, device: u32, options: &Options) -> Result<Session> {
    let devices = module.devices()(services).into_result()?;
    let missing = || BackendError::invalid(format!("backend {} has no device {device}", module.name()));
    let info: DeviceInfo = devices.into_iter().find(|d| d.id == device).ok_or_else(missing)?;
    let rules = module.memory()(&info).into_result()?;
    let opened = module.open()(services, device, &options.open).into_result()?;
    let queue = opened.create_queue().into_result()?;
    Ok(Session {
        module,
        info,
        device: opened,
        queue,
        rules,
    })
}

struct Suite<'a> {
    session: &'a Session,
    options: &'a Options,
    report: Report,
    progress: &'a mut dyn FnMut(&CaseReport),
}

impl Suite<'_> {
    fn add(&mut self, operation: Option<Operation>, ty: Option<Type>, label: String, verdict: Verdict) {
        let case = CaseReport {
            operation,
            ty,
            label,
            verdict,
        };
        (self.progress)(&case);
        self.report.cases.push(case);
    }

    fn device(&mut self) {
        for (label, verdict) in duties::of_device(self.session) {
            self.add(None, None, format!("device {label}"), verdict);
        }
    }

    fn operation(&mut self, operation: Operation) {
        let mut served = HashSet::new();
        let options = self.options;
        cases::generate(operation, options.seed, &|ty| options.wants(ty), &mut |case| {
            self.case(&case, &mut served);
        });
    }

    /// Runs a case; after the first one that is served, what the operation must refuse.
    fn case(&mut self, case: &Case, served: &mut HashSet<Type>) {
        let verdict = match runner::run_case(self.session, case) {
            Verdict::Refused(reason) if case.obligatory && served.contains(&case.ty) => Verdict::Failed(format!(
                "refused, though whoever serves the operation serves this: {reason}"
            )),
            other => other,
        };
        let passed = matches!(verdict, Verdict::Passed { .. });
        self.add(Some(case.operation), Some(case.ty), case.label.clone(), verdict);
        if passed && served.is_empty() {
            for (label, verdict) in duties::of_operation(self.session, case) {
                self.add(Some(case.operation), Some(case.ty), label, verdict);
            }
        }
        if passed {
            served.insert(case.ty);
        }
    }
}
