//! What does not fit, in numbers, and what can be done about it.

use std::fmt;

use indicatif::HumanBytes;

use super::{
    ContextWish, DEFAULT_CONTEXT, PlaceError, Placement,
    search::{Search, Share},
};
use crate::execution::{
    device::Target,
    engine::{Settings, plan_on},
    layout::Layout,
};

/// What is missing.
#[derive(Clone, Debug)]
pub(super) struct Shortfall {
    /// The device; none for all together.
    device: Option<String>,
    needed: u64,
    room: u64,
}

impl Shortfall {
    /// Of all devices together, or where no division suits.
    pub fn of_all(needed: u64, room: u64) -> Shortfall {
        Shortfall {
            device: None,
            needed,
            room,
        }
    }

    /// Of one device, where that has less room than it needs.
    pub fn on(target: &Target, needed: u64, room: u64) -> Option<Shortfall> {
        (needed > room).then(|| Shortfall {
            device: Some(target.short_label()),
            needed,
            room,
        })
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (needed, room) = (HumanBytes(self.needed), HumanBytes(self.room));
        match &self.device {
            Some(device) => write!(f, "{needed} are needed on {device}, which has room for {room}"),
            None if self.needed <= self.room => {
                write!(f, "whole layers of {needed} cannot be divided among rooms of {room}")
            }
            None => write!(f, "at least {needed} are needed, where there is room for {room}"),
        }
    }
}

/// `1 device`, `2 devices`.
pub(super) fn devices(count: usize) -> String {
    crate::stats::counted(count, "device")
}

fn refused<T>(what: String, hint: String) -> Result<T, PlaceError> {
    Err(PlaceError::Refused { what, hint })
}

impl Search<'_> {
    /// Refuses wishes that no plan could ever meet.
    pub fn check(&mut self) -> Result<(), PlaceError> {
        let wishes = self.wishes;
        if !wishes.split.is_empty() && wishes.split.len() != self.devices {
            return refused(
                format!("--split has {} parts for {}", wishes.split.len(), devices(self.devices)),
                "a part for each device, in the order of --devices".into(),
            );
        }
        if wishes.split.last() == Some(&0) {
            return refused(
                "--split: the last device has no part, but it has the output projection".into(),
                "leave out the last device".into(),
            );
        }
        let kept = wishes
            .layers
            .filter(|&layers| layers > 0 && (layers as usize) < self.all());
        if let (Some(layers), None) = (kept, self.host()) {
            return refused(
                format!(
                    "--gpu-layers {layers}: there is nothing to share {} layers with",
                    self.all()
                ),
                "name devices with memory of their own (--devices), and allow the host (no --no-fallback)".into(),
            );
        }
        self.check_experts()
    }

    fn check_experts(&mut self) -> Result<(), PlaceError> {
        let Some(experts) = self.wishes.experts.filter(|&experts| experts > 0) else {
            return Ok(());
        };
        let settings = self.settings(self.usual_context(), 1);
        let most = self.costs(&settings)?.with_experts();
        if experts as usize > most {
            return refused(
                format!("--cpu-experts {experts}: {most} layers of this model have experts"),
                match most {
                    0 => "leave --cpu-experts out".into(),
                    most => format!("--cpu-experts 0 to {most}"),
                },
            );
        }
        match self.host() {
            Some(_) => Ok(()),
            None => refused(
                format!("--cpu-experts {experts}: there is no host beside the devices to keep them"),
                "name devices with memory of their own (--devices), and allow the host (no --no-fallback)".into(),
            ),
        }
    }

    fn usual_context(&self) -> u32 {
        DEFAULT_CONTEXT.min(self.model.context())
    }

    /// What a share takes of one device that had room for all of it, by purpose.
    fn taken(&self, settings: &Settings, share: Share) -> Result<String, PlaceError> {
        let host = self.host().unwrap_or(0);
        let first = self.all() - share.layers.max(1);
        let layer = |layer| if layer < first { host } else { 0 };
        let layout = Layout {
            layers: (0..self.model.layers()).map(layer).collect(),
            output: 0,
            lookup: host,
            experts: (share.experts > 0).then_some((share.experts, host)),
        };
        let plan = plan_on(self.file, self.model, settings, &self.targets, &layout)?;
        let taken = plan.devices.iter().find(|device| device.index == 0);
        let mut of = taken.map(|device| device.purposes()).unwrap_or_default();
        of.weights += self.mapped(&plan, 0);
        Ok(format!(
            "{} (weights {}, cache {}, compute {}, workspace {})",
            HumanBytes(of.total()),
            HumanBytes(of.weights),
            HumanBytes(of.cache),
            HumanBytes(of.compute),
            HumanBytes(of.workspace)
        ))
    }

    /// What there is, as `1.88 GiB on cpu:0/0 (2.00 GiB, of which 128 MiB are assumed to be its driver's)`.
    fn there_is(&self) -> String {
        let one = |target: usize| {
            let of = &self.targets[target];
            let taken = [
                (of.context(), "are assumed to be its driver's"),
                (self.wishes.reserve, "are reserved"),
            ];
            let taken = taken.into_iter().filter(|(bytes, _)| *bytes > 0);
            let taken = taken.map(|(bytes, what)| format!(", {} {what}", HumanBytes(bytes)));
            let has = if of.imports() { of.info.total } else { of.info.free };
            format!(
                "{} on {} (of {}{})",
                HumanBytes(self.room(target)),
                of.short_label(),
                HumanBytes(has),
                taken.collect::<String>()
            )
        };
        (0..self.devices).map(one).collect::<Vec<_>>().join(", ")
    }

    /// Refuses `--gpu-layers`.
    pub fn refuse_layers(&mut self, context: u32, share: Share) -> Result<Placement, PlaceError> {
        let settings = self.settings(context, self.batches(context).last().copied().unwrap_or(1));
        let taken = self.taken(&settings, share)?;
        let fitting = self.most_layers(&settings, share.experts)?;
        let fitting = fitting.map_or(0, |placement| placement.layers_on_devices());
        let what = format!(
            "--gpu-layers {}: {} of {} layers take {taken} at a context of {context} and batch {}, and there is room for {}",
            self.wishes.layers.unwrap_or(0),
            share.layers,
            self.all(),
            settings.batch,
            self.there_is()
        );
        refused(
            what,
            format!("--gpu-layers {fitting} fits; so may a shorter --ctx-size, another --kv-type, or more devices"),
        )
    }

    /// Refuses what has no host to keep the rest, or was to be divided as the user said.
    pub fn refuse_all(&mut self, context: u32, share: Share) -> Result<Placement, PlaceError> {
        let settings = self.settings(context, self.batches(context).last().copied().unwrap_or(1));
        let taken = self.taken(&settings, share)?;
        let what = format!(
            "{}the model takes {taken} at a context of {context} and batch {}, and there is room for {}",
            self.wish_for_all(),
            settings.batch,
            self.there_is()
        );
        refused(
            what,
            "a shorter --ctx-size, a smaller --kv-type, or fewer layers on the devices (--gpu-layers)".into(),
        )
    }

    /// The option that asks for all layers on devices, as messages begin with it.
    fn wish_for_all(&self) -> &'static str {
        match (self.wishes.context, self.wishes.split.is_empty()) {
            (Some(ContextWish::Max), _) => "--ctx-size max is for all layers on devices: ",
            (_, false) => "--split: ",
            _ => "",
        }
    }

    /// Refuses what even the host has no room for.
    pub fn refuse_host(&mut self, settings: &Settings) -> Result<Placement, PlaceError> {
        let share = Share {
            layers: self.all(),
            experts: 0,
        };
        self.refuse_all(settings.context, share)
    }
}
