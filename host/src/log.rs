//! The log: what the host and its plugins have to say, on standard error.

use std::{
    fmt,
    io::{IsTerminal, stderr},
    panic::catch_unwind,
};

use abi_stable::std_types::RStr;
use backend_api::contract::HostServices;
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::{environment, plugins::answer::words};

/// Starts the log. Warnings are always shown; `--log`, or else `GRAFT_LOG`, asks for more or less. A second call does nothing.
pub fn init(wanted: Option<&str>) {
    let wanted = wanted.map(str::to_owned).or_else(environment::log);
    let (filter, refused) = match wanted.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new("warn"), Some(error)),
        None => (EnvFilter::new("warn"), None),
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(environment::colors(stderr().is_terminal()))
        .with_writer(stderr)
        .event_format(Line)
        .try_init();
    if let (Ok(()), Some(error)) = (started, refused) {
        tracing::warn!("GRAFT_LOG or --log is not understood: {error}; hint: GRAFT_LOG=debug or --log host=debug");
    }
}

/// What the host hands to plugins: its log.
pub fn services() -> HostServices {
    let levels = [
        LevelFilter::OFF,
        LevelFilter::ERROR,
        LevelFilter::WARN,
        LevelFilter::INFO,
        LevelFilter::DEBUG,
    ];
    let current = LevelFilter::current();
    HostServices {
        log: record,
        level: levels.iter().filter(|level| **level < current).count() as u32,
        reserved: 0,
        reserved2: [0; 6],
    }
}

/// Takes a record from a plugin. Nothing may unwind into the plugin, so a panic of a subscriber ends here.
extern "C" fn record(level: u32, target: RStr<'_>, message: RStr<'_>) {
    let (source, message) = (target.as_str(), message.as_str());
    let _ = catch_unwind(|| match level {
        0 | 1 => tracing::error!(target: "plugin", source = words(source), "{}", words(message)),
        2 => tracing::warn!(target: "plugin", source = words(source), "{}", words(message)),
        3 => tracing::info!(target: "plugin", source = words(source), "{}", words(message)),
        4 => tracing::debug!(target: "plugin", source = words(source), "{}", words(message)),
        _ => tracing::trace!(target: "plugin", source = words(source), "{}", words(message)),
    });
}

/// A record as a line: `warning: what happened key=value`.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (name, color) = match *event.metadata().level() {
            Level::ERROR => ("error", 31),
            Level::WARN => ("warning", 33),
            Level::INFO => ("info", 32),
            Level::DEBUG => ("debug", 34),
            Level::TRACE => ("trace", 35),
        };
        match to.has_ansi_escapes() {
            true => write!(to, "\x1b[1;{color}m{name}\x1b[0m: ")?,
            false => write!(to, "{name}: ")?,
        }
        context.format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while `act` runs, from level info up.
    pub(crate) fn logged(act: impl FnOnce(HostServices)) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::INFO)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(Line)
            .finish();
        tracing::subscriber::with_default(subscriber, || act(services()));
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn what_a_plugin_says_is_in_the_log_with_its_level_and_source() {
        let log = logged(|services| {
            services.log(backend_api::contract::Level::Warn, "my_backend", || "it is hot".into());
        });
        assert_eq!(log, "warning: it is hot source=\"my_backend\"\n");
    }

    #[test]
    fn a_record_of_a_plugin_is_one_line_without_control_characters() {
        let log = logged(|services| {
            services.log(backend_api::contract::Level::Warn, "my\nbackend", || {
                "\x1b[2Jhot\nand red".into()
            });
        });
        assert_eq!(log, "warning:  [2Jhot and red source=\"my backend\"\n");
    }

    #[test]
    fn a_plugin_makes_no_message_that_nobody_wants() {
        let log = logged(|services| {
            services.log(backend_api::contract::Level::Debug, "my_backend", || unreachable!());
        });
        assert_eq!(log, "");
    }
}
