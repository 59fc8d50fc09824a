import { describe, expect, test } from 'vitest'
import { withInheritedFiles } from '../../../src/process/inherited-files.ts'
import { RESTART_FOR, type ReloadingProgram, restartFields, restartFor } from '../../../src/settings/reload.ts'
import { readSecretFile } from '../../../src/settings/secret.ts'
import { parseSettings, readSettingsText, SECTIONS } from '../../../src/settings/settings.ts'

const settingsOf = (text: string) => parseSettings(text, 'test.toml').settings
const usual = settingsOf('')

/** A value other than the default for each setting that a program keeps until its restart. */
const OTHER: Readonly<Record<string, string>> = {
  listen: '["127.0.0.1:1"]',
  proxy_listen: '["127.0.0.1:1"]',
  tls_listen: '["127.0.0.1:1"]',
  syslog_listen: '["127.0.0.1:1"]',
  policy_listen: '["127.0.0.1:1"]',
  socketmap_listen: '["127.0.0.1:1"]',
  query_listen: '["127.0.0.1:1"]',
  'status-page.listen': '"127.0.0.1:1"',
  metrics_listen: '"127.0.0.1:1"',
  listener: '[{ listen = "127.0.0.1:1", backend = "127.0.0.1:2" }]',
  log_level: '"debug"',
  dbtls: '"verify"',
  checker: '"system"',
  engine: '"node"',
  socket_mode: '"0600"',
}

const otherThan = (section: string, name: string, value: unknown): string => {
  const written = OTHER[`${section}.${name}`] ?? OTHER[name]
  if (written !== undefined) return written
  if (typeof value === 'boolean') return String(!value)
  if (typeof value === 'number') return String(value + 1)
  if (Array.isArray(value)) return '["/other"]'
  return '"/other"'
}

describe('every setting changes at a reload, or its program names it', () => {
  const rows = Object.entries(SECTIONS).flatMap(([key, section]) =>
    Object.keys(section.rows).map(name => ({ key, section: section.name, name })),
  )
  const tableOf = (table: object, key: string): ReadonlyMap<string, unknown> => {
    const part: unknown = Reflect.get(table, key)
    return new Map(Object.entries(typeof part === 'object' && part !== null ? part : {}))
  }
  const programs: readonly ReloadingProgram[] = ['up', 'authd', 'popup', 'sslwrap', 'wrap', 'status-page', 'alerts']

  test('the table has a row for each', () => {
    expect(rows.filter(({ key, name }) => !Array.isArray(tableOf(RESTART_FOR, key).get(name)))).toEqual([])
  })

  const waitingRows = rows.flatMap(row => {
    const waiting = tableOf(RESTART_FOR, row.key).get(row.name)
    return Array.isArray(waiting) && waiting.length > 0 ? [{ ...row, waiting }] : []
  })
  test.each(waitingRows)('$section.$name', ({ key, section, name, waiting }) => {
    const written = `${name} = ${otherThan(section, name, tableOf(usual, key).get(name))}`
    const next = settingsOf(section === '' ? written : `[${section}]\n${written}`)
    const full = section === '' ? name : `${section}.${name}`
    // run_dir moves sockets without a configured path.
    const moved = name === 'run_dir' ? (['socket', 'usage_socket'] as const) : []
    for (const program of programs) {
      const movedHere = moved.filter(socket => RESTART_FOR.authd[socket].includes(program))
      expect(restartFor(program, usual, next), program).toEqual([
        ...(waiting.includes(program) ? [full] : []),
        ...movedHere.map(socket => `authd.${socket}`),
      ])
      expect(restartFor(program, next, next)).toEqual([])
    }
  })

  test('for a listener of sslwrap the address needs a restart of sslwrap, and the other settings do not', () => {
    const listener = (rest: string) => settingsOf(`[[sslwrap.listener]]\nbackend = "127.0.0.1:2"\n${rest}`)
    const before = listener('listen = "127.0.0.1:1"')
    expect(restartFor('sslwrap', before, listener('listen = "127.0.0.1:1"\ncert = "/other"'))).toEqual([])
    expect(restartFor('sslwrap', before, listener('listen = "127.0.0.1:3"'))).toEqual(['sslwrap.listener'])
  })

  test('the line has no such field if no setting needs a restart', () => {
    expect(restartFields('authd', usual, settingsOf('[grants]\nipv6_prefix = 64'))).toEqual({})
    expect(restartFields('popup', usual, settingsOf('[popup]\nlogins = 2\nlisten = ["127.0.0.1:1"]'))).toEqual({
      restart_for: 'popup.listen popup.logins',
    })
  })
})

describe('files that the supervisor passes', () => {
  test('are read in place of the files during the reload, and are closed afterwards', async () => {
    await withInheritedFiles({ '/none.toml': 'a = 1', '/none.pass': 'tulip' }, async () => {
      expect(readSettingsText('/none.toml')).toBe('a = 1')
      expect(readSecretFile('/none.pass').reveal()).toBe('tulip')
    })
    expect(() => readSettingsText('/none.toml')).toThrow('it does not exist')
    expect(() => readSecretFile('/none.pass')).toThrow('cannot read the secret file')
  })

  test('are closed after a reload that fails', async () => {
    const failing = withInheritedFiles({ '/none.pass': 'tulip' }, () => Promise.reject(new Error('no')))
    await expect(failing).rejects.toThrow('no')
    expect(() => readSecretFile('/none.pass')).toThrow('cannot read the secret file')
  })
})
