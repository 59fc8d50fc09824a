import { describe, expect, test } from 'vitest'
import { checkNames } from '../../../../src/auth-relay/check/check-gate.ts'
import { checkSettings } from '../../../../src/auth-relay/check/check-settings.ts'
import { formatFindings, formatSet, formatShown } from '../../../../src/auth-relay/verbs/check.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'

const findingsOf = (toml: string) => checkSettings(parseSettings(toml, 'x.toml').settings)
const unsafe = (toml: string) =>
  findingsOf(`configured = true\n${toml}`)
    .filter(({ verdict }) => verdict === 'unsafe')
    .map(({ about }) => about)

describe('settings alone', () => {
  test('the defaults are safe when the file is confirmed', () => {
    expect(unsafe('')).toEqual([])
    expect(
      findingsOf('')
        .filter(({ verdict }) => verdict === 'unsafe')
        .map(({ about }) => about),
    ).toEqual(['configured'])
  })

  test.each([
    ['[grants]\ngrant_loopback = true', 'grants.grant_loopback'],
    ['[grants]\nexp_time = 59\nalrm_time = 59', 'grants.exp_time'],
    ['[grants]\nexp_time = 60\nalrm_time = 61', 'grants.alrm_time'],
    ['[popup]\nssl_hack_trust = ["0.0.0.0/0"]', 'popup.ssl_hack_trust'],
    ['[popup]\nproxy_trust = ["::/0"]', 'popup.proxy_trust'],
    ['[popup]\nproxy_listen = ["127.0.0.1:1100"]', 'popup.proxy_trust'],
    ['[popup]\nstls = true', 'popup.stls'],
    ['[authd]\nsyslog_listen = ["127.0.0.1:6514"]', 'authd.check_daemon_*'],
    ['[authd]\nsyslog_listen = ["*:6514"]\ncheck_daemon_ipop3d = true', 'authd.syslog_listen'],
    ['[wrap]\npolicy_listen = ["192.0.2.1:10040"]', 'wrap.policy_listen'],
    ['[wrap]\nlisten = ["*:25"]\nfront = true\nsmtpd = ["/usr/sbin/exim4", "-bs"]', 'wrap.front'],
    ['[wrap]\nlisten = ["*:25"]\nfront = true\nsmtpd = ["/usr/bin/env", "exim4", "-bs"]', 'wrap.front'],
    ['[wrap]\nlisten = ["*:25"]\nfront = true\nsmtpd = ["/bin/sh", "-c", "exec /usr/sbin/sendmail -bs"]', 'wrap.front'],
    ['[status-page]\nlisten = "192.0.2.1:8110"', 'status-page.listen'],
    ['[popup]\nchecker = "upstream"', 'popup.upstream'],
    ['[popup]\nchecker = "sql"\nsql_query = "select"\nsql_dbuser = "x"', 'popup.sql_dbname'],
    ['[sslwrap]\nclient_certificate = "required"', 'sslwrap.client_certificate'],
    ['[authd]\ndaemon_tags = ["nosuch=x"]', 'authd.daemon_tags'],
    ['[authd]\nmetrics_listen = "*:9633"', 'authd.metrics_listen'],
    ['[sslwrap]\nmetrics_listen = "192.0.2.1:9634"', 'sslwrap.metrics_listen'],
    ['[database]\ndbpass = "pop3authd"', 'database.dbpass'],
    ['[database]\ndbpass = "x9"\nwrap_dbpass = "x9"', 'database.wrap_dbpass'],
  ])('%s is unsafe', (toml, about) => expect(unsafe(toml)).toEqual([about]))

  test.each([
    ['[wrap]\nquery_listen = ["unix:/run/q.sock"]\nsocket_mode = "0666"', 'wrap.socket_mode'],
    ['[wrap]\npolicy_listen = ["127.0.0.1:10040"]\nmessages_per_login = 9', 'wrap.policy_listen'],
    ['[wrap]\nfront = true', 'wrap.front'],
    ['[wrap]\nlisten = ["*:25"]\nsender_binding = "warn"', 'wrap.sender_binding'],
    ['[wrap]\nsocketmap_listen = ["127.0.0.1:10041"]\nmessages_per_login = 9', 'wrap.messages_per_login'],
  ])('%s is advised against', (toml, about) => {
    const advised = (text: string) =>
      findingsOf(`configured = true\n${text}`)
        .filter(({ verdict }) => verdict === 'advice')
        .map(finding => finding.about)
    expect(advised(toml)).toContain(about)
    expect(advised('')).not.toContain(about)
  })

  test.each([
    ['listen = ["*:25"]\nfront = true'],
    ['policy_listen = ["127.0.0.1:10040"]'],
    ['query_listen = ["127.0.0.1:10042"]'],
  ])('with %s the rules for senders have an effect', lines => {
    const about = findingsOf(`configured = true\n[wrap]\n${lines}\nsender_binding = "refuse"`).map(
      finding => finding.about,
    )
    expect(about).not.toContain('wrap.sender_binding')
  })

  test.each([
    ['["setuidgid", "postfix", "/var/qmail/bin/qmail-smtpd"]'],
    ['["/usr/bin/envdir", "/etc/postfix", "/var/qmail/bin/qmail-smtpd"]'],
    ['["/usr/bin/env", "MTA=exim4", "/var/qmail/bin/qmail-smtpd"]'],
  ])('the name of an account, a directory or a variable is no server behind the front: smtpd = %s', smtpd =>
    expect(unsafe(`[wrap]\nlisten = ["*:25"]\nfront = true\nsmtpd = ${smtpd}`)).toEqual([]),
  )

  test('a TLS listener that can answer no client is unsafe, and is not checked while sslwrap is not in use', () => {
    const listener = (lines: string) =>
      unsafe(`[[sslwrap.listener]]\nlisten = "*:465"\nbackend = "127.0.0.1:25"\n${lines}`)
    expect(listener('protocol = "smtp"')).toEqual(['sslwrap.listener[0].preamble'])
    expect(listener('protocol = "smtp"\npreamble = "none"\ntls = "old"')).toEqual(['sslwrap.listener[0].tls'])
    expect(unsafe('[popup]\nlisten = []\n[sslwrap]\nclient_certificate = "required"')).toEqual([])
  })

  test('a FIFO is advised against, and the advice names the better source', () => {
    const [finding] = findingsOf('configured = true\n[authd]\nsyslog_fifo = "/x"\ncheck_daemon_ipop3d = true').filter(
      ({ about }) => about === 'authd.syslog_fifo',
    )
    expect(finding?.verdict).toBe('advice')
    expect(finding?.remedy).toContain('omfwd')
  })

  test.each([
    ['[popup]\nproxy_trust = ["203.0.113.9"]', 'popup.proxy_trust', 'fine', '203.0.113.9'],
    ['[wrap]\nproxy_trust = ["127.0.0.1", "203.0.113.0/28"]', 'wrap.proxy_trust', 'fine', '203.0.113.0/28'],
    ['[popup]\nssl_hack_trust = ["10.0.0.0/8"]', 'popup.ssl_hack_trust', 'advice', '10.0.0.0/8'],
    ['[grants]\nipv6_prefix = 64', 'grants.ipv6_prefix', 'advice', 'NAT64'],
  ])('%j: the ungrantable addresses are listed', (toml, about, verdict, text) => {
    const found = findingsOf(`configured = true\n${toml}`).filter(finding => finding.about === about)
    expect(found).toEqual([expect.objectContaining({ verdict, text: expect.stringContaining(text) })])
  })

  test('loopback alone and listed translators give no finding', () => {
    const found = findingsOf('configured = true\n[grants]\nipv6_prefix = 64\nnat64_prefixes = ["2001:db8:64::/96"]')
    expect(found.map(({ about }) => about)).not.toContain('popup.ssl_hack_trust')
    expect(found.map(({ about }) => about)).not.toContain('grants.ipv6_prefix')
  })

  test('a former name is reported with the current one', () => {
    const { shown } = parseSettings('[grants]\nnever_nets = []', 'x.toml')
    expect(checkNames(shown)).toEqual([
      expect.objectContaining({ verdict: 'advice', about: 'grants.never_nets', remedy: 'write never_grant' }),
    ])
    expect(checkNames(parseSettings('[grants]\nnever_grant = []', 'x.toml').shown)).toEqual([])
  })

  test('every finding other than `fine` has a remedy', () => {
    for (const finding of findingsOf('[grants]\ngrant_loopback = true\nexp_time = 30')) {
      expect(finding.verdict === 'fine' || finding.remedy !== undefined).toBe(true)
    }
  })
})

describe('the output of check', () => {
  const same = (text: string) => text
  const style = { good: same, bad: same, warning: same, faint: same, strong: same }

  test('shows origins, and no secret', () => {
    const { shown } = parseSettings('configured = true\n[database]\ndbpass = "hush"\n', 'x.toml', { EXP_TIME: '600' })
    const text = formatShown(shown, style)
    expect(text).toContain('  configured = true  (line 1)\n')
    expect(text).toContain('  exp_time = 600  (environment EXP_TIME)\n')
    expect(text).toContain('  alrm_time = "1min"  (default)\n')
    expect(text).toContain('  dbpass = "[secret]"  (line 3)\n')
    expect(text).not.toContain('hush')
  })

  test('has by default only the settings of the file and the environment', () => {
    const text = '[database]\ndbpass = "hush"\n[wrap]\nlisten = ["*:25"]\n'
    const { shown } = parseSettings(`configured = true\n${text}`, 'x.toml', { EXP_TIME: '600' })
    expect(formatSet(shown, style)).toBe(
      [
        'For every program',
        '  configured = true  (line 1)',
        '[database]',
        '  dbpass = "[secret]"  (line 3)',
        '[grants]',
        '  exp_time = 600  (environment EXP_TIME)',
        '[wrap]',
        '  listen = ["*:25"]  (line 5)',
        'Every other setting has its default: auth-relay check --settings',
        '',
        '',
      ].join('\n'),
    )
    expect(formatSet([], style)).toBe('Every setting has its default: auth-relay check --settings\n\n')
  })

  test('has the worst finding last, with its remedy; quiet omits `fine`', () => {
    const findings = [
      { verdict: 'unsafe', about: 'a', text: 'bad', remedy: 'mend' },
      { verdict: 'fine', about: 'b', text: 'good' },
    ] as const
    expect(formatFindings(findings, false, style)).toBe(
      'fine    b: good\nunsafe  a: bad\n        do: mend\nNot safe: 1 to correct.\n',
    )
    expect(formatFindings(findings.slice(1), true, style)).toBe('Safe.\n')
  })
})
