//! The kernel kills a child whose parent dies, when it was told so by `setpriv --pdeathsig`; and it takes the thread that
//! made the child for its parent. So children are made by a thread that lasts as long as the process.

use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts `command`.
pub(crate) fn on_lasting_thread(command: Command) -> Child {
    static THREAD: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = channel();
    thread.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).unwrap();
    child.recv().unwrap().unwrap()
}
