//! Starting a model again, on what is left when a device failed.

use anyhow::anyhow;
use backend_api::BackendError;

use super::{AttemptError, Left, Running, Setup};
use crate::{
    execution::device::Target,
    generation::Rescue,
    placement::{ContextWish, Ground, PlaceError, Placement, Wishes},
    progress::Meter,
};

/// Starts a model, and whenever a device fails, once more without it. Each device is lost at most once.
pub struct Starter<'a> {
    setup: Setup<'a>,
    left: Left,
}

impl<'a> Starter<'a> {
    /// Starts what `setup` has.
    pub fn new(setup: Setup<'a>) -> Starter<'a> {
        Starter {
            setup,
            left: Left::default(),
        }
    }

    /// Opens the first backend that can run the model; see [`Setup::start`].
    pub fn start(&mut self, meter: &Meter) -> anyhow::Result<Running> {
        self.setup.start_with(&mut self.left, meter)
    }
}

impl Rescue for Starter<'_> {
    fn rescue(&mut self, failed: &Target, error: &BackendError, context: u32) -> anyhow::Result<Running> {
        let label = failed.label();
        if !self.setup.request.fallback {
            return Err(anyhow!(
                "{label}: {error}\nhint: without --no-fallback the answer goes on elsewhere"
            ));
        }
        tracing::warn!("{label}: {error}; going on without it");
        self.left.losses.add(failed);
        self.left.context = Some(context);
        let started = self.setup.start_with(&mut self.left, &Meter::default());
        started.map_err(|nowhere| anyhow!("{label}: {error}\n{nowhere}"))
    }
}

impl Setup<'_> {
    /// Places what ran until a device failed: as the user wished, with the context that it had; where that cannot be, as is
    /// best; and else with the longest context there is.
    pub(super) fn place_again(&self, ground: &Ground, context: u32) -> Result<Placement, AttemptError> {
        let asked = &self.request.wishes;
        let same = Wishes {
            context: Some(ContextWish::Tokens(context)),
            ..asked.clone()
        };
        let best = Wishes {
            layers: None,
            split: Vec::new(),
            experts: None,
            spread: false,
            ..same.clone()
        };
        let longest = Wishes {
            context: Some(ContextWish::Max),
            ..best.clone()
        };
        let mut refusal = None;
        for wishes in [same, best, longest] {
            match self.place(ground, &wishes) {
                Ok(placement) => {
                    if let Some(refusal) = refusal {
                        tracing::warn!("{refusal}; going on without that");
                    }
                    return Ok(placement);
                }
                Err(PlaceError::Refused { what, .. }) => refusal = refusal.or(Some(what)),
                Err(error) => return Err(error.into()),
            }
        }
        let what = refusal.unwrap_or_default();
        Err(AttemptError::Place(PlaceError::Refused {
            what,
            hint: "--ctx-size asks for a shorter context".into(),
        }))
    }
}
