//! Finding backends, asking them how well they can serve, and choosing one.
//!
//! A file passes these stages, and what stops it is its error in the list:
//!
//! 1. [`search`] finds it; [`trust`] refuses what others than the user could have put there.
//! 2. [`elf`] looks at the file, since `dlopen` trusts files blindly.
//! 3. [`probe`] asks it in a child process, unless [`seen`] knows that this very file answered before.
//! 4. [`load`] loads it into this process, which checks the layout of everything that crosses the boundary, and it is
//!    asked for its score and devices.
//!
//! [`choice`] makes the order in which they are tried. No name of a backend means anything here.

use std::{cmp::Ordering, collections::HashSet, ffi::OsStr, fmt, path::PathBuf, thread};

use backend_api::{
    BackendError,
    contract::{BackendModule, DeviceInfo, DeviceObject, OpenOptions},
};

pub mod answer;
pub mod choice;
pub mod elf;
pub mod error;
pub mod features;
pub mod listing;
pub mod load;
pub mod probe;
pub mod search;
pub mod seen;
pub mod trust;

pub use choice::{ChoiceError, choose, open_first};
pub use error::{PluginError, SearchError};
pub use probe::Prober;
pub use search::Search;

use crate::log;
use answer::{told, words};

/// A file that was found, and what is known of it.
pub struct Plugin {
    /// The file.
    pub path: PathBuf,
    /// The backend's name, as `--backend` takes it.
    pub name: Option<String>,
    /// The backend's own version.
    pub version: Option<String>,
    /// How well it can serve; finite, and 0 where it cannot.
    pub score: Option<f32>,
    /// The reason of the score.
    pub reason: Option<String>,
    /// Why it cannot be used.
    pub error: Option<PluginError>,
    /// The devices that are here; none where the score is 0.
    pub devices: Vec<DeviceInfo>,
    /// Its functions, once it is loaded.
    pub module: Option<BackendModule>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plugin({})", self.label())
    }
}

impl Plugin {
    /// A file of which nothing is known.
    pub fn at(path: PathBuf) -> Self {
        Plugin {
            path,
            name: None,
            version: None,
            score: None,
            reason: None,
            error: None,
            devices: Vec::new(),
            module: None,
        }
    }

    /// Its name, or its file's.
    pub fn label(&self) -> String {
        let file = || {
            self.path
                .file_name()
                .unwrap_or(OsStr::new("?"))
                .to_string_lossy()
                .into_owned()
        };
        self.name.clone().unwrap_or_else(file)
    }

    /// Why it cannot serve; nothing if it can.
    pub fn obstacle(&self) -> Option<String> {
        match (&self.error, self.score) {
            (Some(error), _) => Some(error.to_string()),
            (None, Some(score)) if score > 0.0 => None,
            _ => Some(self.reason.clone().unwrap_or_else(|| "it was not asked".into())),
        }
    }

    /// Opens the device with this [`DeviceInfo::id`].
    pub fn open(&self, device: u32, options: &OpenOptions) -> Result<DeviceObject, BackendError> {
        let not_loaded = || BackendError::failed(self.obstacle().unwrap_or_else(|| "it is not loaded".into()));
        let module = self.module.ok_or_else(not_loaded)?;
        told(module.open()(log::services(), device, options))
    }

    /// Loads and asks it in this process, unless something speaks against it.
    fn take_in(&mut self) {
        if self.error.is_none() {
            self.load();
            self.ask();
        }
    }

    /// Checks the file and loads it into this process; what fails is the plugin's error.
    fn load(&mut self) {
        match self.try_load() {
            Ok(module) => {
                self.name = Some(words(module.name().as_str()));
                self.version = Some(words(module.version().as_str()));
                self.module = Some(module);
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn try_load(&self) -> Result<BackendModule, PluginError> {
        elf::check(&self.path)?;
        Ok(load::load(&self.path)?)
    }

    /// Asks for score and devices, if it is loaded; what fails is the plugin's error.
    fn ask(&mut self) {
        if let Some(module) = self.module {
            self.error = self.try_ask(module).err();
        }
    }

    fn try_ask(&mut self, module: BackendModule) -> Result<(), PluginError> {
        let services = log::services();
        let score = told(module.score()(services)).map_err(PluginError::Score)?;
        if !score.value.is_finite() {
            return Err(PluginError::ScoreValue(score.value));
        }
        let score = (score.value.max(0.0), words(&score.reason));
        if score.0 > 0.0 {
            self.devices = devices_of(module)?;
        }
        (self.score, self.reason) = (Some(score.0), Some(score.1));
        Ok(())
    }

    /// Makes sure that the file may be loaded and asked in this process; what speaks against it is the plugin's error.
    fn vet(&mut self, prober: &Prober, seen: &seen::Seen) {
        if let Err(error) = self.try_vet(prober, seen) {
            self.error = Some(error);
        }
    }

    fn try_vet(&mut self, prober: &Prober, seen: &seen::Seen) -> Result<(), PluginError> {
        let unreadable = elf::ElfError::Unreadable;
        let file = self.path.canonicalize().map_err(unreadable)?;
        trust::check(&file)?;
        file.parent().map_or(Ok(()), trust::check)?;
        elf::check(&file)?;
        let identity = seen::Identity::of(&file).map_err(unreadable)?;
        if seen.contains(&identity) {
            return Ok(());
        }
        let answer = prober.ask(&file);
        (self.name, self.version) = (answer.name, answer.version);
        answer.error.map_or(Ok(()), Err)?;
        seen.remember(identity);
        Ok(())
    }
}

/// More bytes than any device has: sums of so much for all devices of a machine stay numbers.
const MOST_MEMORY: u64 = 1 << 56;

/// The devices that a plugin lists, each with a number of its own.
fn devices_of(module: BackendModule) -> Result<Vec<DeviceInfo>, PluginError> {
    let devices = told(module.devices()(log::services())).map_err(PluginError::Devices)?;
    let mut devices = devices.into_vec();
    let mut ids = HashSet::new();
    for device in &mut devices {
        device.name = words(&device.name).into();
        if !ids.insert(device.id) {
            return Err(PluginError::SameDevice(device.id));
        }
        if device.total.max(device.free) > MOST_MEMORY {
            return Err(PluginError::Memory {
                device: device.id,
                bytes: device.total.max(device.free),
            });
        }
    }
    match devices.is_empty() {
        true => Err(PluginError::NoDevices),
        false => Ok(devices),
    }
}

/// Finds the plugins and asks each for its score and devices. The best score comes first; of equal ones the one that the
/// search path has first; those that cannot serve come last, with their reason or error.
pub fn discover(search: &Search, prober: &Prober) -> Result<Vec<Plugin>, SearchError> {
    let mut plugins: Vec<_> = search.files()?.into_iter().map(Plugin::at).collect();
    let seen = seen::Seen::read(prober.seen.as_deref());
    // Side by side, so that two that hang cost one time limit.
    thread::scope(|scope| {
        for plugin in &mut plugins {
            scope.spawn(|| plugin.vet(prober, &seen));
        }
    });
    plugins.iter_mut().for_each(Plugin::take_in);
    plugins.sort_by(by_merit);
    Ok(plugins)
}

/// Checks, loads and asks one file, wherever it lies.
pub fn examine(path: PathBuf, prober: &Prober) -> Plugin {
    let mut plugin = Plugin::at(path);
    plugin.vet(prober, &seen::Seen::read(prober.seen.as_deref()));
    plugin.take_in();
    plugin
}

/// Better ones first: by score, then those that cannot serve, then those with an error.
fn by_merit(a: &Plugin, b: &Plugin) -> Ordering {
    let merit = |plugin: &Plugin| match plugin.error {
        Some(_) => f32::NEG_INFINITY,
        None => plugin.score.unwrap_or(0.0),
    };
    merit(b).total_cmp(&merit(a))
}

#[cfg(test)]
mod tests {
    use backend_api::{
        Result,
        contract::{HostServices, Score},
        graph::{Graph, Node},
        plugin::{Backend, Device, module},
    };

    use super::*;

    /// Lists a device of so much memory for each of two numbers, with a name that turns a terminal red.
    struct Rude<const FIRST: u32, const SECOND: u32, const FREE: u64 = 0>;

    impl<const FIRST: u32, const SECOND: u32, const FREE: u64> Backend for Rude<FIRST, SECOND, FREE> {
        const NAME: &'static str = "rude";
        const VERSION: &'static str = "0";

        fn score(_: HostServices) -> Result<Score> {
            Ok(Score::new(1.0, "best\x07"))
        }

        fn devices(_: HostServices) -> Result<Vec<DeviceInfo>> {
            let device = |id| DeviceInfo {
                id,
                name: "\x1b[31mred".into(),
                free: FREE,
                ..DeviceInfo::default()
            };
            Ok([FIRST, SECOND].map(device).into())
        }

        fn open(_: HostServices, _: u32, _: &OpenOptions) -> Result<Box<dyn Device>> {
            Err(BackendError::failed("no\x1b[2J"))
        }

        fn supports(_: &DeviceInfo, _: &Graph<'_>, _: &Node) -> Result<()> {
            Ok(())
        }
    }

    fn asked(module: BackendModule) -> Plugin {
        let mut plugin = Plugin {
            module: Some(module),
            ..Plugin::at("/plugins/rude.so".into())
        };
        plugin.ask();
        plugin
    }

    #[test]
    fn what_a_plugin_says_is_shown_without_control_characters() {
        let plugin = asked(module::<Rude<0, 7>>());
        assert!(plugin.error.is_none());
        assert_eq!(plugin.reason.as_deref(), Some("best "));
        assert_eq!(plugin.devices[1].name.as_str(), " [31mred");
        let refused = plugin.open(0, &OpenOptions::default()).err().unwrap();
        assert_eq!(refused.message.as_str(), "no [2J");
    }

    #[test]
    fn two_devices_of_one_number_are_an_error() {
        let error = asked(module::<Rude<3, 3>>()).error.unwrap();
        assert_eq!(error.to_string(), "it lists two devices with number 3");
    }

    #[test]
    fn more_memory_than_a_device_can_have_is_an_error() {
        let error = asked(module::<Rude<0, 1, { u64::MAX }>>()).error.unwrap();
        assert_eq!(
            error.to_string(),
            "it says that its device 0 has 18446744073709551615 bytes of memory, more than there can be"
        );
    }
}
