//! Where a database is: `mysql://USER:PASSWORD@HOST:PORT/DATABASE`. The password never shows in a message.

use std::fmt;

use mysql_async::{Opts, OptsBuilder};

use crate::CatalogError;

/// Address of a database with the right to use it.
#[derive(Clone)]
pub struct DatabaseUrl {
    /// Which key of the configuration it is, for messages.
    name: String,
    url: String,
    password: Option<String>,
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.name)
    }
}

impl DatabaseUrl {
    /// `name` says in messages which URL it is; `password` stands in for one that the URL does not hold.
    pub fn new(name: impl Into<String>, url: impl Into<String>, password: Option<&str>) -> Self {
        Self { name: name.into(), url: url.into(), password: password.map(str::to_owned) }
    }

    /// # Errors
    /// `BadUrl`, with what is wrong but without the URL.
    pub(super) fn options(&self) -> Result<Opts, CatalogError> {
        let bad = |what: String| CatalogError::BadUrl { name: self.name.clone(), what };
        // The parser's own messages quote values.
        let opts = Opts::from_url(&self.url).map_err(|error| {
            bad(match error {
                mysql_async::UrlError::UnknownParameter { param } => format!("unknown parameter `{param}`"),
                mysql_async::UrlError::InvalidParamValue { param, .. } => format!("bad value of parameter `{param}`"),
                mysql_async::UrlError::UnsupportedScheme { .. } => "it must begin with mysql://".to_owned(),
                _ => "it is no URL".to_owned(),
            })
        })?;
        if opts.db_name().is_none_or(str::is_empty) {
            return Err(bad("it names no database".to_owned()));
        }
        match (&self.password, opts.pass()) {
            (Some(password), None) => Ok(OptsBuilder::from_opts(opts).pass(Some(password.clone())).into()),
            _ => Ok(opts),
        }
    }

    /// The database, for messages.
    pub(super) fn place(&self, opts: &Opts) -> String {
        format!("mysql://{}:{}/{}", opts.ip_or_hostname(), opts.tcp_port(), opts.db_name().unwrap_or_default())
    }
}
