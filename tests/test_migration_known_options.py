"""The options of OpenDKIM, OpenDMARC, policyd-spf and dkimpy-milter are known, and what they become is known here."""

from __future__ import annotations

import pytest

from mailguard.config import Config
from mailguard.migration.note import NoteKind
from migration_site import Site, configuration, migration_site, said

__all__ = ["migration_site"]

SIGNING = "Domain one.test\nSelector s\nKeyFile @/a.private\nInternalHosts 192.0.2.1\n"

# Of opendkim.conf(5), opendmarc.conf(5), dkimpy-milter.conf(5) and policydspfsupp.py.
NAMES = {
    "opendkim": """AllowSHA1Only AlwaysAddARHeader AuthservID AuthservIDWithJobID AutoRestart AutoRestartCount
        AutoRestartRate Background BaseDirectory BodyLengthDB BogusKey CaptureUnknownErrors Canonicalization
        ChangeRootDirectory ClockDrift Diagnostics DiagnosticDirectory DisableCryptoInit DNSConnect DNSTimeout Domain
        DomainKeysCompat DontSignMailTo EnableCoredumps ExemptDomains ExternalIgnoreList FinalPolicyScript FixCRLF
        IdentityHeader IdentityHeaderRemove IgnoreMalformedMail InternalHosts KeepAuthResults KeepTemporaryFiles
        KeyFile KeyTable LDAPAuthMechanism LDAPAuthName LDAPAuthRealm LDAPAuthUser LDAPBindPassword LDAPBindUser
        LDAPDisableCache LDAPKeepaliveIdle LDAPKeepaliveInterval LDAPKeepaliveProbes LDAPTimeout LDAPUseTLS
        LogResults LogWhy MacroList MaximumHeaders MaximumSignaturesToVerify MaximumSignedBytes MilterDebug Minimum
        MinimumKeyBits Mode MTA MTACommand MultipleSignatures MustBeSigned Nameservers NoHeaderB OmitHeaders
        On-BadSignature
        On-Default On-DNSError On-InternalError On-KeyNotFound On-NoSignature On-Security On-SignatureError
        OversignHeaders PeerList PidFile POPDBFile Quarantine QueryCache RedirectFailuresTo RemoveARAll RemoveARFrom
        RemoveOldSignatures ReplaceHeaders ReplaceRules ReportAddress ReportBccAddress RequestReports RequiredHeaders
        RequireSafeKeys ResignAll ResignMailTo ResolverConfiguration ResolverTracing ScreenPolicyScript
        SelectCanonicalizationHeader Selector SenderHeaders SenderMacro SendReports SetupPolicyScript
        SignatureAlgorithm SignatureTTL SignHeaders SigningTable SMTPURI Socket SoftStart SoftwareHeader Statistics
        StatisticsName StatisticsPolicyScript StatisticsPrefix StrictHeaders StrictTestMode SubDomains Syslog
        SyslogFacility SyslogName SyslogSuccess TemporaryDirectory TestDNSData TestPublicKeys TrustAnchorFile
        TrustSignaturesFrom UMask UnprotectedKey UserID VBR-Certifiers VBR-PurgeFields VBR-TrustedCertifiers
        VBR-TrustedCertifiersOnly VBR-Type WeakSyntaxChecks""",
    "opendmarc": """AuthservID AuthservIDWithJobID AutoRestart AutoRestartCount AutoRestartRate Background
        BaseDirectory ChangeRootDirectory CopyFailuresTo DomainWhitelist DomainWhitelistFile DomainWhitelistSize
        DNSTimeout EnableCoredumps FailureReports FailureReportsBcc FailureReportsOnNone FailureReportsSentBy
        HistoryFile HoldQuarantinedMessages IgnoreAuthenticatedClients IgnoreHosts IgnoreMailFrom IgnoreMailTo
        MilterDebug PidFile PublicSuffixList RecordAllMessages RejectFailures RejectMultiValueFrom RejectString
        ReportCommand RequiredHeaders Socket SoftwareHeader SPFIgnoreResults SPFSelfValidate Syslog SyslogFacility
        TrustedAuthservIDs UMask UserID""",
    "dkimpy-milter": """AuthservID Canonicalization DiagnosticDirectory Domain InternalHosts KeyFile KeyFileEd25519
        KeyTable KeyTableEd25519 MacroList MacroListVerify Mode MinimumKeyBits OmitHeaders DNSOverride DNSTimeout
        PeerList PidFile Selector SelectorEd25519 SignHeaders SigningTable Socket SubDomains Syslog SyslogFacility
        SyslogSuccess UMask UserID debugLevel""",
    "policyd-spf": """debugLevel HELO_reject Mail_From_reject PermError_reject TempError_Defer
        Mail_From_pass_restriction HELO_pass_restriction Prospective Whitelist skip_addresses HELO_Whitelist
        Domain_Whitelist Domain_Whitelist_PTR No_Mail Reject_Not_Pass_Domains Per_User TestOnly defaultSeedOnly
        SPF_Enhanced_Status_Codes Header_Type Hide_Receiver Authserv_Id Lookup_Time Whitelist_Lookup_Time Void_Limit
        Reason_Message Mock QueueID Socket PidFile UserID UMask InternalHosts IntHosts MacroList""",
}


@pytest.mark.parametrize("program", NAMES)
@pytest.mark.parametrize("value", ["1", "no", "192.0.2.1", "/nowhere/at/all", "\N{SNOWMAN}"])
def test_every_documented_option_is_known(migration_site: Site, program: str, value: str) -> None:
    between = " = " if program == "policyd-spf" else "\t"
    names = NAMES[program].split()
    imported = migration_site.imported(**{program: "".join(f"{name}{between}{value}\n" for name in names)})
    assert not [text for text in said(imported, NoteKind.BROKEN) if "no such option" in text]
    # One option after another, alone.
    for name in names:
        alone = migration_site.imported(**{program: f"{name}{between}{value}\n"})
        assert configuration(alone)["mode"] == "monitor"


def test_what_is_written_is_known_here(migration_site: Site) -> None:
    """The order of the tables is complete: whatever may come out of a reader is a key of the configuration."""
    migration_site.key("a.private")
    everything = migration_site.imported(
        opendkim=f"{SIGNING}Mode sv\nSignatureTTL 86400\nNameservers 192.0.2.53\nMaximumSignaturesToVerify 3\n"
        "Socket inet:1@localhost\nUserID opendkim\n",
        opendmarc="AuthservID a.test\nIgnoreMailFrom b.test\n",
        policyd_spf="HELO_reject = No_Check\nWhitelist = 192.0.2.1\n",
    )
    tables = {
        "authserv_id",
        "dns",
        "domains",
        "listeners",
        "mode",
        "policy",
        "results",
        "sign",
        "spf",
        "trusted",
        "verify",
    }
    assert set(configuration(everything)) == tables
    assert tables <= set(Config.model_fields)
