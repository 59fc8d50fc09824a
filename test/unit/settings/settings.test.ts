import { writeFileSync } from 'node:fs'
import { fc, test } from '@fast-check/vitest'
import { describe, expect, onTestFinished } from 'vitest'
import { nearest, UsageFault } from '../../../src/base/errors.ts'
import { createLog } from '../../../src/base/log.ts'
import { parseDurationIn, writeDuration } from '../../../src/settings/duration.ts'
import { environmentNameOf } from '../../../src/settings/rows.ts'
import { loadDaemonSettings, parseSettings, requireConfigured, SECTIONS } from '../../../src/settings/settings.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const PATH = '/etc/auth-relay.toml'

const faultsOf = (text: string, environment = {}): readonly string[] => {
  try {
    parseSettings(text, PATH, environment)
  } catch (error) {
    if (error instanceof UsageFault) return error.faults
    throw error
  }
  return []
}

describe('a good file', () => {
  test('an empty one gives every default, and the defaults are valid', () => {
    const { settings, shown } = parseSettings('', PATH)
    expect(settings.grants.exp_time).toBe(1800)
    expect(settings.popup.listen).toEqual([{ kind: 'tcp', host: '::', port: 110 }])
    expect(settings.top.configured).toBe(false)
    expect(new Set(shown.map(({ origin }) => origin.kind))).toEqual(new Set(['default']))
    expect(shown).toHaveLength(Object.values(SECTIONS).reduce((sum, { rows }) => sum + Object.keys(rows).length, 0))
  })

  test('the file overrides the default, the environment overrides the file, and each value has its origin', () => {
    const { settings, shown } = parseSettings('[grants]\n# comment\nexp_time = 600\nalrm_time = 30\n', PATH, {
      EXP_TIME: '900',
    })
    expect(settings.grants.exp_time).toBe(900)
    expect(settings.grants.alrm_time).toBe(30)
    const originOf = (wanted: string) => shown.find(({ name }) => name === wanted)?.origin
    expect(originOf('exp_time')).toEqual({ kind: 'environment', variable: 'EXP_TIME' })
    expect(originOf('alrm_time')).toEqual({ kind: 'file', line: 4 })
    expect(originOf('max_lifetime')).toEqual({ kind: 'default' })
  })

  test('a duration has a unit; a number without one keeps its old unit', () => {
    const of = (text: string) => parseSettings(text, PATH).settings
    expect(of('[grants]\nexp_time = "1h30min"\nhistory_days = "2w"').grants).toMatchObject({
      exp_time: 5400,
      history_days: 14,
    })
    expect(of('[popup]\ngrant_wait = "2s"\nlogin_time = "5m"').popup).toMatchObject({
      grant_wait: 2000,
      login_time: 300,
    })
    expect(of('[popup]\ngrant_wait = 800').popup.grant_wait).toBe(800)
    expect(parseSettings('', PATH, { EXP_TIME: '10min', WRAP_TIMEOUT: '7' }).settings).toMatchObject({
      grants: { exp_time: 600 },
      wrap: { wrap_timeout: 7 },
    })
  })

  test('delays are seconds as numbers or texts, or durations with a unit', () => {
    const delaysIn = (text: string) =>
      parseSettings(`[popup]\nfail_delays = ${text}\n`, 'test').settings.popup.fail_delays
    expect(delaysIn('[2, 0.5, "4", "1.5", "800ms", "1min"]')).toEqual([2000, 500, 4000, 1500, 800, 60_000])
    expect([delaysIn('[0]'), delaysIn('[]')]).toEqual([[0], []])
    expect(SECTIONS.popup.rows.fail_delays.default).toEqual(['2s', '4s', '8s', '15s'])
    expect(parseSettings('', 'test').settings.popup.fail_delays).toEqual([2000, 4000, 8000, 15_000])
    for (const bad of ['[-1]', '["soon"]', '[10000]', '2']) {
      expect(() => delaysIn(bad)).toThrow(
        'must be a list of durations from "0s" to "9999s", such as ["2s", "4s", "8s", "15s"]',
      )
    }
  })

  test('a duration that is invalid, too short, too long, or not a whole number of its unit is one fault with an example', () => {
    const allowed = 'must be a duration from "1s" to "1d" in whole seconds, such as "30min"'
    for (const wrong of ['"soon"', '"30"', '""', '"1.5h"', '"1500ms"', '"2d"', '0', '-1', '1.5', 'true', '["1h"]']) {
      expect(faultsOf(`[grants]\nexp_time = ${wrong}`), wrong).toEqual([`${PATH}:2: grants.exp_time: ${allowed}`])
    }
  })

  test.prop([fc.integer({ min: 0, max: 10_000_000 }), fc.constantFrom('ms', 's', 'd')])(
    'each count of a unit is written as a text that gives the same count',
    (count, unit) => {
      expect(parseDurationIn(unit, writeDuration(count, unit))).toBe(count)
    },
  )

  test('run_dir moves the sockets between the programs, but none with a configured path', () => {
    const sockets = (text: string, environment = {}) => {
      const { socket, usage_socket } = parseSettings(text, PATH, environment).settings.authd
      return [socket, usage_socket]
    }
    expect(sockets('')).toEqual(['/run/auth-relay/authd.sock', '/run/auth-relay/usage.sock'])
    expect(sockets('run_dir = "/srv/run"')).toEqual(['/srv/run/authd.sock', '/srv/run/usage.sock'])
    expect(sockets('', { RUN_DIR: '/srv/run' })).toEqual(['/srv/run/authd.sock', '/srv/run/usage.sock'])
    expect(sockets('run_dir = "/srv/run"\n[authd]\nsocket = ""\nusage_socket = "/srv/u"')).toEqual(['', '/srv/u'])
    expect(sockets('run_dir = ""')).toEqual(sockets(''))
    expect(faultsOf('run_dir = "run"')).toEqual([expect.stringContaining('run_dir: must be an absolute path')])
  })

  test('its values cannot be changed afterwards', () => {
    const { settings } = parseSettings('', PATH)
    expect(Object.isFrozen(settings)).toBe(true)
    expect(Object.values(settings).every(Object.isFrozen)).toBe(true)
    expect(Object.isFrozen(settings.popup.listen)).toBe(true)
  })

  test('texts of the environment are read like values in the file', () => {
    const { settings } = parseSettings('', PATH, {
      CHECK_DAEMON_IPOP3D: '1',
      CHECK_DAEMON_VCHKPW: 'no',
      NEVER_NETS: '192.0.2.0/24, 2001:db8::/32',
      SSL_REPLY: 'none',
      POPUP_LISTEN: '127.0.0.1:0 [::1]:0',
      WRAP_SMTPD: '/usr/sbin/smtpd -x  y',
      CONFIGURED: 'true',
    })
    expect(settings.authd.check_daemon_ipop3d).toBe(true)
    expect(settings.authd.check_daemon_vchkpw).toBe(false)
    const inside = parseIpAddress('2001:db8::7') ?? expect.unreachable()
    expect(settings.grants.never_grant.has(inside)).toBe(true)
    expect(settings.popup.ssl_reply).toBe('none')
    expect(settings.popup.listen).toHaveLength(2)
    expect(settings.wrap.smtpd).toEqual(['/usr/sbin/smtpd', '-x', 'y'])
    expect(settings.top.configured).toBe(true)
  })

  test('listeners of sslwrap are tables', () => {
    const { settings } = parseSettings(
      '[[sslwrap.listener]]\nlisten = "*:995"\nbackend = "127.0.0.1:110"\n\n[[sslwrap.listener]]\nlisten = "*:465"\nbackend = "127.0.0.1:25"\npreamble = "none"\nprotocol = "smtp"\n',
      PATH,
    )
    expect(settings.sslwrap.listener.map(({ preamble, protocol }) => [preamble, protocol])).toEqual([
      ['ssl', 'pop3'],
      ['none', 'smtp'],
    ])
  })
})

describe('every name of the original config.h is a setting, and an environment variable of that name', () => {
  const variables = new Set(
    Object.values(SECTIONS).flatMap(section => Object.keys(section.rows).map(name => environmentNameOf(section, name))),
  )
  test.each([
    'QMAILDIR',
    'QMAIL_SMTPD_NOAUTH',
    'SSL_HACK_PASS',
    'DBHOST',
    'DBPORT',
    'DBNAME',
    'DBUSER',
    'DBPASS',
    'EXP_TIME',
    'ALRM_TIME',
    'SYSLOG_FIFO',
    'CHECK_DAEMON_IPOP3D',
    'CHECK_DAEMON_VCHKPW',
    'CHECK_DAEMON_HACKED_QMAILPOP3D',
    'CONFIGURED',
  ])('%s', name => {
    expect(variables).toContain(name)
  })

  test('no two settings share a variable', () => {
    const all = Object.values(SECTIONS).flatMap(section =>
      Object.keys(section.rows).map(name => environmentNameOf(section, name)),
    )
    expect(new Set(all).size).toBe(all.length)
  })
})

test('a session in TRANSACTION may be idle for 10 minutes at least', () => {
  expect(parseSettings('[pop3d]\nidle_time = 600', PATH).settings.pop3d.idle_time).toBe(600)
  expect(faultsOf('[pop3d]\nidle_time = 599')).toEqual([expect.stringContaining('pop3d.idle_time')])
})

describe('a setting with a former name', () => {
  const inside = parseIpAddress('192.0.2.7') ?? expect.unreachable()

  test.each<[string, string, Record<string, string>, string | undefined]>([
    ['the present name in the file', '[grants]\nnever_grant = ["192.0.2.0/24"]', {}, undefined],
    ['the former name in the file', '[grants]\nnever_nets = ["192.0.2.0/24"]', {}, 'never_nets'],
    ['the present name in the environment', '[grants]\nnever_nets = []', { NEVER_GRANT: '192.0.2.0/24' }, undefined],
    ['the former name in the environment', '[grants]\nnever_grant = []', { NEVER_NETS: '192.0.2.0/24' }, 'never_nets'],
  ])('%s applies', (_, toml, environment, formerName) => {
    const { settings, shown } = parseSettings(toml, PATH, environment)
    expect(settings.grants.never_grant.has(inside)).toBe(true)
    expect(shown.find(({ name }) => name === 'never_grant')?.formerName).toBe(formerName)
  })

  test('a daemon logs it once, at its start or at the reload after which the name stands there', () => {
    const directory = temporaryDirectory()
    onTestFinished(directory.remove)
    const file = `${directory.path}/auth-relay.toml`
    const lines: string[] = []
    const log = createLog('authd', { write: line => lines.push(line) })
    writeFileSync(file, 'configured = true\n[grants]\nnever_nets = ["192.0.2.0/24"]\n')
    const environment = { POPUP_REMEMBER_PASSWORDS: '0' }
    expect(loadDaemonSettings('authd', file, environment, log).grants.never_grant.has(inside)).toBe(true)
    loadDaemonSettings('authd', file, environment, log)
    expect(lines).toEqual([
      'authd: level=warn event=setting_renamed setting=grants.never_nets reason="it is called never_grant now: write never_grant"\n',
      expect.stringMatching(
        /^authd: level=warn event=setting_renamed setting=popup\.remember_passwords reason=".*: rename POPUP_REMEMBER_PASSWORDS"\n$/,
      ),
    ])
  })

  test('both names at once are a fault', () => {
    expect(faultsOf('[grants]\nnever_grant = []\nnever_nets = ["192.0.2.0/24"]')).toEqual([
      `${PATH}:3: grants.never_nets is the former name of never_grant: write never_grant alone`,
    ])
  })

  test('a former name belongs to the section of its setting', () => {
    expect(faultsOf('[popup]\nnever_nets = []')).toEqual([
      `${PATH}:2: popup.never_nets: unknown setting; it belongs under [grants]`,
    ])
  })

  test('no former name is the name of another setting of its section', () => {
    for (const { rows } of Object.values(SECTIONS)) {
      const all = Object.entries(rows).flatMap(([name, { formerNames }]) => [name, ...formerNames])
      expect(new Set(all).size).toBe(all.length)
    }
  })
})

test.each([
  ['["2001:db8::/33"]', false],
  ['["192.0.2.0/24"]', false],
  ['["2001:db8:64::/96", "2001:db8::/32"]', true],
])('nat64_prefixes = %s: %s', (list, isGood) => {
  const text = `[grants]\nnat64_prefixes = ${list}`
  if (isGood) expect(parseSettings(text, PATH).settings.grants.nat64_prefixes).toHaveLength(2)
  else expect(faultsOf(text)).toEqual([expect.stringMatching(/:2: grants\.nat64_prefixes.*\/96 \(RFC 6052\)/)])
})

describe('a bad file', () => {
  test('all faults at once, each with its line and its remedy', () => {
    const faults = faultsOf(
      [
        'configurd = true',
        'log_level = "loud"',
        '[grants]',
        'exp_time = 0',
        'never_nets = ["192.0.2.1/24"]',
        '[popup]',
        'exp_time = 60',
        'listen = ["::1:110"]',
        '[grant]',
        'x = 1',
      ].join('\n'),
    )
    expect(faults).toEqual([
      `${PATH}:1: configurd: unknown setting; did you mean configured?`,
      `${PATH}:7: popup.exp_time: unknown setting; it belongs under [grants]`,
      `${PATH}:9: grant: unknown section; did you mean grants?`,
      `${PATH}:2: log_level: must be one of "debug", "info", "warn", "error"`,
      `${PATH}:4: grants.exp_time: must be a duration from "1s" to "1d" in whole seconds, such as "30min"`,
      expect.stringMatching(/:5: grants\.never_nets\[0\]: "192\.0\.2\.1\/24" is not a network: write /),
      expect.stringMatching(/:8: popup\.listen\[0\]: must be "ADDRESS:PORT", /),
    ])
  })

  test.each([
    ['[grants]\nexp_time = "600"', /:2: grants\.exp_time: must be a duration/],
    ['[grants]\nexp_time = 600.5', /:2: grants\.exp_time: must be a duration/],
    ['[grants]\nipv6_prefix = 96', /:2: grants\.ipv6_prefix: must be one of the numbers 64, 128/],
    ['[popup]\nstls = 1', /:2: popup\.stls: must be true or false/],
    ['[popup]\npasswd_file = "relative"', /:2: popup\.passwd_file: must be an absolute path/],
    ['[popup]\nchecker = "magic"', /:2: popup\.checker: must be one of "passwd-file"/],
    ['[wrap]\nsmtpd = "/bin/true"', /:2: wrap\.smtpd: must be a list/],
    ['popup = 1', /:1: popup: is a section: write \[popup\]/],
    ['[wrap]\nrelayclient_value = "a\\nb"', /:2: wrap\.relayclient_value: must be one line/],
    ['[[sslwrap.listener]]\nlisten = "*:995"', /:1: sslwrap\.listener\[0\]\.backend: is missing/],
    [
      '[[sslwrap.listener]]\nlisten = "*:995"\nbackend = "*:1"\nbackends = 1',
      /:1: sslwrap\.listener\[0\]\.backends: unknown setting/,
    ],
  ])('%j', (text, message) => {
    expect(faultsOf(text)).toEqual([expect.stringMatching(message)])
  })

  test.each(['[grants', 'exp_time = ', 'a = 1\na = 2', '\0', 'x = "\u0001"', '[grants]\n[grants]'])(
    'not TOML: %j: one line with the place',
    text => {
      expect(faultsOf(text)).toEqual([expect.stringMatching(/^\/etc\/auth-relay\.toml:\d+: [^\n]+$/)])
    },
  )

  test('an invalid override is reported with its variable', () => {
    expect(faultsOf('', { EXP_TIME: 'soon', SSL_REPLY: '' })).toEqual([
      'environment EXP_TIME: grants.exp_time: must be a duration from "1s" to "1d" in whole seconds, such as "30min"',
      expect.stringMatching(/^environment SSL_REPLY: popup\.ssl_reply: must be one of/),
    ])
  })

  test('a name with control characters is reported in one line without them', () => {
    expect(faultsOf('"conf\\r\\n\\u001b[2Jed" = 1')).toEqual([
      `${PATH}:1: conf\\u{d}\\u{a}\\u{1b}[2Jed: unknown setting`,
    ])
  })

  test('names that every object has are unknown settings', () => {
    expect(faultsOf('constructor = 1\n[popup]\ntoString = 1')).toHaveLength(2)
  })
})

test('no program starts until the administrator has confirmed the file', () => {
  const { settings } = parseSettings('', PATH)
  expect(() => requireConfigured(settings, PATH)).toThrow(/\/etc\/auth-relay\.toml: .*set configured = true/)
  expect(() => requireConfigured(parseSettings('configured = true', PATH).settings, PATH)).not.toThrow()
})

test.each([
  ['exp_tim', 'exp_time'],
  ['EXP_TIME', 'exp_time'],
  ['dbhosts', 'dbhost'],
  ['zzzzzz', undefined],
  ['', undefined],
])('the nearest word to %j', (word, known) => {
  expect(nearest(word, ['exp_time', 'alrm_time', 'dbhost'])).toBe(known)
})
