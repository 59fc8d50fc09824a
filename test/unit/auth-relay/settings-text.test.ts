import { describe, expect, test } from 'vitest'
import { formatSettings, RECIPES, recipeForHost } from '../../../src/auth-relay/text/settings-text.ts'
import { settingsFor, settingsTemplate } from '../../../src/auth-relay/verbs/init.ts'
import { parseSettings, SECTIONS } from '../../../src/settings/settings.ts'

describe('a settings file made from the table of settings', () => {
  const text = formatSettings(
    {
      '': { configured: true },
      popup: { listen: ['127.0.0.1:0', '[::1]:0'], hostname: 'a "quoted" \\ name' },
      sslwrap: { workers: 2, listener: [{ listen: '127.0.0.1:995', backend: '127.0.0.1:110', preamble: 'proxy-v2' }] },
    },
    { head: ['One.', ''], withDefaults: false },
  )

  test('contains exactly the given settings', () => {
    expect(text).toBe(`# One.
#

configured = true

[popup]
listen = [ "127.0.0.1:0", "[::1]:0" ]
hostname = "a \\"quoted\\" \\\\ name"

[sslwrap]
workers = 2

[[sslwrap.listener]]
listen = "127.0.0.1:995"
backend = "127.0.0.1:110"
preamble = "proxy-v2"
`)
  })

  test('has the same settings when it is read again', () => {
    const { settings } = parseSettings(text, 'x.toml')
    expect(settings.popup.hostname).toBe('a "quoted" \\ name')
    expect(settings.sslwrap.listener[0]).toMatchObject({ preamble: 'proxy-v2', backend: { port: 110 } })
  })

  test('refuses an unknown setting', () => {
    const write = (overrides: Record<string, Record<string, unknown>>) => () =>
      formatSettings(overrides, { head: [], withDefaults: false })
    expect(write({ popup: { hostnam: 'x' } })).toThrow('there is no setting popup.hostnam')
    expect(write({ popups: {} })).toThrow('there is no section popups')
  })
})

describe('the file that init writes', () => {
  const text = settingsTemplate(
    '/etc/auth-relay.toml',
    settingsFor({ secret: '/etc/sslhack.pass', database: 'embedded' }),
  )

  test('shows every setting with its meaning, and is valid without a change', () => {
    const { settings, shown } = parseSettings(text, 'x.toml')
    expect(settings.top.configured).toBe(false)
    expect(settings.database.embedded).toBe(true)
    expect(settings.authd.user).toBe('auth-relay')
    for (const { name, rows } of Object.values(SECTIONS)) {
      if (name !== '') expect(text).toContain(`\n[${name}]\n`)
      for (const [setting, { doc }] of Object.entries(rows)) {
        expect(text).toMatch(new RegExp(`^#?${setting} = `, 'm'))
        expect(text.replaceAll('\n# ', ' ')).toContain(doc)
      }
    }
    expect(shown.filter(({ origin }) => origin.kind === 'file').map(({ name }) => name)).toEqual([
      'configured',
      'embedded',
      'ssl_hack_pass',
      'user',
    ])
  })

  test('has the same meaning when every default is uncommented', () => {
    const allOn = text.replaceAll(/^#([a-z_0-9]+ = )/gm, '$1')
    expect(parseSettings(allOn, 'x.toml').settings).toEqual(parseSettings(text, 'x.toml').settings)
  })

  test('has random passwords for a server, different ones each time', () => {
    const passwords = [1, 2].flatMap(() => {
      const { database } = parseSettings(
        settingsTemplate('/etc/x.toml', settingsFor({ secret: '/etc/s', database: { dbhost: 'db1,db2' } })),
        'x.toml',
      ).settings
      expect(database.dbhost).toBe('db1,db2')
      return [database.dbpass, database.wrap_dbpass, database.status_dbpass]
    })
    expect(new Set(passwords).size).toBe(6)
    for (const password of passwords) expect(password).toMatch(/^[\w-]{32}$/)
  })
})

describe('the recipe of qmail', () => {
  const wrapOf = (exists: boolean) => {
    const recipe = recipeForHost('qmail', path => exists && path === '/etc/tcp.smtp.cdb')
    const overrides = settingsFor({ secret: '/etc/sslhack.pass', database: 'embedded', recipe })
    const text = settingsTemplate('/etc/auth-relay.toml', overrides, recipe)
    return { text, wrap: parseSettings(text, 'auth-relay.toml').settings.wrap }
  }

  test('names the cdb of tcpserver if the file exists', () => {
    expect(wrapOf(true).wrap.rules).toBe('/etc/tcp.smtp.cdb')
    expect(wrapOf(true).text).not.toContain('does not exist')
  })

  test('omits it on a host without the file, with a note in the settings file', () => {
    const { text, wrap } = wrapOf(false)
    expect(wrap).toEqual({ ...wrapOf(true).wrap, rules: '' })
    expect(text).toContain('# /etc/tcp.smtp.cdb does not exist, so wrap.rules is not set.')
  })

  test('the other recipes do not depend on files of the host', () => {
    for (const site of ['postfix', 'postfix-popup', 'exim', 'logs'] as const)
      expect(recipeForHost(site, () => false)).toBe(RECIPES[site])
  })
})
