//! What stops a client until a person answers.

/// How an engine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was told to.
    Shutdown,
    /// It will not go on without an answer.
    Asking(Question),
}

/// What the client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// The folder is not there.
    RootVanished,
    /// Another folder stands in its place.
    RootExchanged,
    /// The folder is there, and all that was in it is not.
    RootEmptied,
    /// The server does not know the cursor.
    Reset,
}

impl Question {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::RootVanished => {
                "the folder is not there; bring it back, or answer `restore` to make it anew and fetch everything"
            }
            Self::RootExchanged => {
                "another folder stands in the place of the one that was synced; bring the first one back, or answer \
                 `proceed` to merge this one with the server's files"
            }
            Self::RootEmptied => {
                "everything in the folder is gone at once; answer `proceed` to delete it on the server too, or \
                 `restore` to fetch it again"
            }
            Self::Reset => {
                "the server was restored or does not know where this client stands; answer `proceed` to list anew \
                 and merge: nothing is deleted"
            }
        }
    }
}
