use super::*;

const EXAMPLE: &str = include_str!("../../agent.example.toml");

/// Reads a text as the file `agent.toml` of a folder of its own.
fn read(text: &str) -> Result<(Config, PathBuf), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    let config = Config::read(&path).map_err(|error| error.to_string())?;
    Ok((config, folder.path().into()))
}

/// The example with every optional key that is commented out in it.
fn whole() -> String {
    let is_key = |line: &str| {
        line.strip_prefix("# ").is_some_and(|rest| {
            rest.split_once(" = ")
                .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        })
    };
    let uncomment = |line: &str| if is_key(line) { line[2..].to_owned() } else { line.to_owned() };
    EXAMPLE.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

fn folder_of(config: &Config) -> &Path {
    config.provisioner.server_root.parent().unwrap()
}

// Goal: the example is a configuration, and says of each default what it is.
#[test]
fn the_example_is_read_and_its_comments_tell_the_defaults() {
    let (config, folder) = read(EXAMPLE).unwrap();
    assert_eq!(config.device_id.as_str(), "gateway-0001");
    assert_eq!(config.state_dir, Path::new("/var/lib/fleetcert"));
    assert_eq!(config.provisioner.endpoint.to_string(), "provisioner.example:8443");
    assert_eq!(config.provisioner.server_root, folder.join("server-root.pem"));
    assert_eq!(config.provisioner.token_file, Some(folder.join("token")));
    let mqtt = config.mqtt.as_ref().unwrap();
    assert_eq!(mqtt.root(&config.provisioner), config.provisioner.server_root);

    let (explicit, _) = read(&whole()).unwrap();
    assert_eq!(explicit.renewal, config.renewal);
    assert_eq!((explicit.key.backend, &explicit.key.tpm), (config.key.backend, &config.key.tpm));
    assert_eq!(config.key.owner_auth_file, None);
    assert_eq!(explicit.key.owner_auth_file, Some(folder_of(&explicit).join("owner-auth")));
    let explicit_mqtt = explicit.mqtt.as_ref().unwrap();
    assert_eq!(explicit_mqtt.keep_alive_s, mqtt.keep_alive_s);
    assert_eq!(explicit_mqtt.state_interval_s, mqtt.state_interval_s);
    assert!(explicit_mqtt.root(&explicit.provisioner).ends_with("broker-root.pem"));
    assert_eq!(explicit.provisioner.label.as_deref(), Some("line-1"));
}

// Goal: a misspelt key, at any depth, is an error with its line and the keys that are allowed.
#[test]
fn unknown_keys_are_refused_with_line_and_alternatives() {
    for (known, unknown, expected) in [
        ("state_dir =", "statedir =", "`state_dir`"),
        ("token_file =", "tokenfile =", "`token_file`"),
        ("keep_alive_s =", "keepalive =", "`keep_alive_s`"),
        ("rekey =", "re_key =", "`rekey`"),
        ("backend =", "backened =", "`backend`"),
        ("[mqtt]", "[mqt]", "`mqtt`"),
    ] {
        let text = whole().replacen(known, unknown, 1);
        let line = text.lines().position(|line| line.starts_with(unknown)).unwrap() + 1;
        let error = read(&text).unwrap_err();
        let says = |what: &str| assert!(error.contains(what), "{what} is missing in: {error}");
        says("unknown field");
        says(expected);
        says(&format!("line {line}"));
        says("agent.toml");
    }
}

// Goal: a value that makes no sense is refused where it stands, with what was expected.
#[test]
fn values_out_of_bounds_are_refused_where_they_stand() {
    for (good, bad, expected) in [
        ("gateway-0001", "gateway/1", "device id has '/' at octet 7"),
        ("https://provisioner.example:8443", "http://provisioner.example", "expected https://host"),
        ("https://provisioner.example:8443", "https://p.example/est", "without a path"),
        ("mqtts://broker.example:8883", "mqtts://broker.example:0", "expected mqtts://host"),
        ("keep_alive_s = 60", "keep_alive_s = 4", "keep_alive_s is 4, expected 5 to 65535"),
        ("keep_alive_s = 60", "keep_alive_s = 65536", "keep_alive_s is 65536"),
        ("state_interval_s = 0", "state_interval_s = 9", "state_interval_s is 9, expected 10 to"),
        ("target_days = 0", "target_days = 3661", "expected 0 to 3660"),
        ("target_days = 0", "target_days = -1", "invalid value"),
        ("rekey = \"always\"", "rekey = \"often\"", "expected `always` or `never`"),
        ("backend = \"auto\"", "backend = \"hsm\"", "expected one of `auto`, `software`, `tpm`"),
        ("tpm = \"/dev/tpmrm0\"", "tpm = \"tpmrm0\"", "tpm is \"tpmrm0\": expected a device"),
        ("tpm = \"/dev/tpmrm0\"", "tpm = \"swtpm:192.0.2.1:1\"", "expected an address on loopback"),
        ("label = \"line-1\"", "label = \"line/1\"", "label is \"line/1\": "),
        ("label = \"line-1\"", "label = \"cacerts\"", "label is \"cacerts\": "),
        ("label = \"line-1\"", "label = \"\"", "label is \"\": "),
        ("state_dir = \"/var/lib/fleetcert\"", "", "missing field `state_dir`"),
    ] {
        let error = read(&whole().replacen(good, bad, 1)).unwrap_err();
        assert!(error.contains(expected), "{bad}: {error}");
        assert!(error.contains("line ") || bad.is_empty(), "{error}");
    }
}

// Goal: a TPM is found by each form of its address, a relative socket beside the file.
#[test]
fn the_tpm_is_where_the_file_says() {
    let address = |text: &str| {
        let text = whole().replacen("\ntpm = \"/dev/tpmrm0\"", &format!("\ntpm = {text:?}"), 1);
        let (config, folder) = read(&text).unwrap();
        (config.key.tpm, folder)
    };
    assert_eq!(address("/dev/tpm0").0, Address::Device("/dev/tpm0".into()));
    let (socket, folder) = address("swtpm:tpm/socket");
    assert_eq!(socket, Address::Socket(folder.join("tpm/socket")));
    let tcp = Address::Tcp("127.0.0.1:2321".parse().unwrap());
    assert_eq!(address("swtpm:127.0.0.1:2321").0, tcp);
}

// Goal: hosts that can be dialled are read, with the port of their scheme.
#[test]
fn endpoints_have_a_host_and_a_port() {
    for (url, text) in [
        ("https://a", "a:443"),
        ("https://a.example/", "a.example:443"),
        ("https://127.0.0.1:1", "127.0.0.1:1"),
        ("https://[::1]", "[::1]:443"),
        ("https://[::1]:65535", "[::1]:65535"),
    ] {
        assert_eq!(Endpoint::parse(url, "https", 443).unwrap().to_string(), text);
    }
    for url in [
        "",
        "https",
        "https://",
        "https://:1",
        "https://a:",
        "https://a:+1",
        "https://a:65536",
        "https://a..b",
        "https://[::1",
        "https://[::1]1",
        "https://[a]:1",
        "https://u@a",
        "https://a?b",
        "https://a b",
        "HTTPS://a",
        "mqtts://a",
    ] {
        assert!(Endpoint::parse(url, "https", 443).is_err(), "{url}");
    }
}

// Goal: a file that is missing, or is not text of a sane length, is named.
#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let error = Config::read(&path).unwrap_err().to_string();
    assert!(error.contains("none.toml not readable"), "{error}");
    let long = "#".repeat(usize::try_from(FILE_LEN_MAX).unwrap() + 1);
    let error = read(&long).unwrap_err();
    assert!(error.ends_with("is longer than 65536 octets"), "{error}");
}

// Goal: what the file says reaches the machine's policy in its units.
#[test]
fn the_policy_is_that_of_the_file() {
    let text = whole()
        .replace("rekey = \"always\"", "rekey = \"never\"")
        .replace("availability_target_days = 0", "availability_target_days = 30");
    let policy = read(&text).unwrap().0.policy(Wall(7));
    assert_eq!(policy.build_time, Wall(7));
    assert_eq!(policy.rekey, Rekey::Never);
    assert_eq!(policy.availability_target_s, 30 * 86_400);
}
