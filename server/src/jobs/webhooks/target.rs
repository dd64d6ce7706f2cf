//! Targets of webhooks: which URLs and which addresses are allowed.
//!
//! Pure. A URL is checked when a job is submitted and again at each attempt and redirect; an address is checked right before
//! the connection to exactly this address. Names are not resolved here.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

use super::WebhookSettings;
use super::address::AddressClass;

/// Maximum length of a URL in bytes.
const MAX_URL_LENGTH: usize = 2048;

/// A host that the operator has listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// A name or an address.
    Host(Host),
    /// Every name below a domain.
    Below(String),
}

impl HostPattern {
    /// Parses a host name, an IP address, or `*.` and a domain.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("*.") {
            Some(domain) => Self::Below(normalized(domain)),
            None => Self::Host(Host::parse(text)),
        }
    }

    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Host(listed), host) => listed == host,
            (Self::Below(domain), Host::Name(name)) => name
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            (Self::Below(_), Host::Address(_)) => false,
        }
    }
}

/// The host of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name, in lower case and without a final dot.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Host {
    fn parse(text: &str) -> Self {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match bare.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(normalized(text)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

fn normalized(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// A URL that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether it is reached over TLS.
    pub is_secure: bool,
    /// Host.
    pub host: Host,
    /// Port.
    pub port: u16,
    /// Host and port as written, for the header `host`.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// Whether the operator has listed the host.
    is_listed: bool,
}

impl Target {
    /// Checks an address of the host.
    ///
    /// # Errors
    /// It is not public, and the host is not listed.
    pub fn check_address(&self, address: IpAddr) -> Result<(), TargetError> {
        let class = AddressClass::of(address);
        let is_allowed = class == AddressClass::Public || (self.is_listed && class.can_be_listed());
        if is_allowed {
            return Ok(());
        }
        Err(TargetError::NotPublic {
            host: self.host.to_string(),
            class,
        })
    }

    /// The URL of a redirect, which is not checked yet. `None` if it is relative to the path.
    pub fn redirect(&self, location: &str) -> Option<String> {
        let scheme = if self.is_secure { "https" } else { "http" };
        if location.contains("://") {
            Some(location.to_owned())
        } else if location.starts_with("//") {
            Some(format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Some(format!("{scheme}://{}{location}", self.authority))
        } else {
            None
        }
    }
}

/// Why a webhook is rejected. Messages do not contain addresses that a name resolves to, which clients may not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Webhooks are not enabled.
    #[error(
        "webhooks are disabled on this server: the operator can enable them with `webhook_secret` in [jobs]; otherwise, poll \
         the job"
    )]
    Disabled,
    /// The URL cannot be parsed.
    #[error(
        "invalid URL: expected http:// or https://, a host, and an optional port and path, without user, password and \
             fragment, at most {MAX_URL_LENGTH} bytes"
    )]
    Malformed,
    /// The host is not among the listed ones.
    #[error("the host `{0}` is not allowed: expected one of `webhook_allowed_hosts` in [jobs]")]
    NotAllowed(String),
    /// The URL is not that of a listed host, and has no TLS.
    #[error("expected an https URL: http is allowed only for hosts in `webhook_allowed_hosts` in [jobs]")]
    NotSecure,
    /// The address is not public, and the host is not listed.
    #[error(
        "the host `{host}` has a {class} address: expected a public address, or a host in `webhook_allowed_hosts` in [jobs]"
    )]
    NotPublic {
        /// The host.
        host: String,
        /// Class of its address.
        class: AddressClass,
    },
}

/// Checks the URL of a webhook, as far as that is possible without resolving its host.
///
/// # Errors
/// Why it is rejected.
pub fn check_target(url: &str, settings: &WebhookSettings) -> Result<Target, TargetError> {
    if settings.secret.is_none() {
        return Err(TargetError::Disabled);
    }
    let mut target = parse(url).ok_or(TargetError::Malformed)?;
    let allowed = &settings.allowed_hosts;
    target.is_listed = allowed.iter().any(|pattern| pattern.matches(&target.host));
    if !target.is_listed && !allowed.is_empty() {
        return Err(TargetError::NotAllowed(target.host.to_string()));
    }
    match &target.host {
        Host::Address(address) => target.check_address(*address)?,
        // Resolvers need not be asked about these.
        Host::Name(name) if !target.is_listed && (name == "localhost" || name.ends_with(".localhost")) => {
            return Err(TargetError::NotPublic {
                host: name.clone(),
                class: AddressClass::Loopback,
            });
        }
        Host::Name(_) => {}
    }
    if !target.is_secure && !target.is_listed {
        return Err(TargetError::NotSecure);
    }
    Ok(target)
}

fn parse(url: &str) -> Option<Target> {
    if url.len() > MAX_URL_LENGTH || url.contains('#') {
        return None;
    }
    let uri = Uri::from_str(url).ok()?;
    let is_secure = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = uri.authority()?;
    let (text, host) = (authority.as_str(), authority.host());
    if text.contains('@') || host.trim_matches(['[', ']', '.']).is_empty() {
        return None;
    }
    // `Authority` accepts ports that are not numbers.
    let port = match text.strip_prefix(host)? {
        "" if is_secure => 443,
        "" => 80,
        port => port.strip_prefix(':')?.parse().ok().filter(|port| *port > 0)?,
    };
    let parsed = Host::parse(host);
    if matches!(&parsed, Host::Name(name) if ends_in_number(name)) {
        return None;
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Some(Target {
        is_secure,
        host: parsed,
        port,
        authority: text.to_owned(),
        path: path.to_owned(),
        is_listed: false,
    })
}

/// Whether a resolver may take a name for an address in another notation, such as `127.1` or `0x7f000001`.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    last.bytes().all(|digit| digit.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hexadecimal)
}

#[cfg(test)]
mod tests {
    use super::super::WebhookSecret;
    use super::*;

    fn settings(allowed: &[&str]) -> WebhookSettings {
        WebhookSettings {
            allowed_hosts: allowed.iter().map(|host| HostPattern::parse(host)).collect(),
            secret: WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ..WebhookSettings::disabled()
        }
    }

    fn check(url: &str, allowed: &[&str]) -> Result<Target, TargetError> {
        check_target(url, &settings(allowed))
    }

    #[test]
    fn public_hosts_are_allowed_over_tls() {
        let target = check("https://Hooks.Example.com./a?b=c", &[]).expect("it is allowed");
        assert_eq!(target.host, Host::Name("hooks.example.com".to_owned()));
        assert_eq!((target.port, target.path.as_str()), (443, "/a?b=c"));
        let target = check("https://[2606:4700:4700::1111]:8443", &[]).expect("it is allowed");
        assert_eq!((target.port, target.path.as_str()), (8443, "/"));
        assert_eq!(target.authority, "[2606:4700:4700::1111]:8443");
        assert_eq!(check("http://example.com/", &[]), Err(TargetError::NotSecure));
    }

    #[test]
    fn addresses_that_are_not_public_are_rejected_in_every_notation() {
        for url in [
            "https://127.0.0.1/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://10.0.0.1:8443/",
            "https://169.254.169.254/latest/meta-data",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
        ] {
            let error = check(url, &[]).expect_err(url);
            assert!(matches!(error, TargetError::NotPublic { .. }), "{url}: {error:?}");
        }
    }

    #[test]
    fn only_listed_hosts_are_allowed_if_any_are_listed() {
        let allowed = ["hooks.internal", "*.example.com", "10.0.0.1"];
        for url in [
            "https://hooks.internal/",
            "http://hooks.internal:8080/",
            "https://HOOKS.internal./",
            "https://a.example.com/",
            "https://a.b.example.com/",
            "http://10.0.0.1/",
        ] {
            assert!(check(url, &allowed).is_ok(), "{url}");
        }
        for url in [
            "https://example.com/",
            "https://badexample.com/",
            "https://hooks.internal.evil.com/",
            "https://10.0.0.2/",
            "https://8.8.8.8/",
        ] {
            let error = check(url, &allowed).expect_err(url);
            assert!(matches!(error, TargetError::NotAllowed(_)), "{url}: {error:?}");
        }
    }

    #[test]
    fn a_name_that_resolves_to_an_address_that_is_not_public_is_rejected_unless_it_is_listed() {
        let private: IpAddr = "10.0.0.1".parse().expect("it is an address");
        let multicast: IpAddr = "224.0.0.1".parse().expect("it is an address");
        let unlisted = check("https://rebind.example.com/", &[]).expect("the name is allowed");
        let listed = check("https://rebind.example.com/", &["*.example.com"]).expect("it is listed");
        assert!(unlisted.check_address(private).is_err());
        assert_eq!(listed.check_address(private), Ok(()));
        assert!(listed.check_address(multicast).is_err(), "never");
    }

    #[test]
    fn malformed_urls_are_rejected() {
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL_LENGTH));
        for url in [
            "",
            "example.com",
            "/path",
            "ftp://example.com/",
            "https://",
            "https:///path",
            "https://user@example.com/",
            "https://user:password@example.com/",
            "https://example.com/#fragment",
            "https://example.com:0/",
            "https://example.com:port/",
            "https://example.com:70000/",
            "https://exa mple.com/",
            "https://2130706433/",
            "https://127.1/",
            "https://0x7f000001/",
            "https://0X7F.0.0.1./",
            &long,
        ] {
            assert_eq!(check(url, &[]), Err(TargetError::Malformed), "{url}");
        }
    }

    #[test]
    fn webhooks_require_a_secret() {
        let settings = WebhookSettings::disabled();
        let checked = check_target("https://example.com/", &settings);
        assert_eq!(checked, Err(TargetError::Disabled));
    }

    #[test]
    fn a_redirect_is_absolute_or_starts_at_the_root() {
        let target = check("https://example.com:8443/a/b", &[]).expect("it is allowed");
        for (location, url) in [
            ("http://10.0.0.1/x", Some("http://10.0.0.1/x")),
            ("//other.example/x", Some("https://other.example/x")),
            ("/x?y", Some("https://example.com:8443/x?y")),
            ("x", None),
        ] {
            assert_eq!(target.redirect(location).as_deref(), url, "{location}");
        }
    }
}
