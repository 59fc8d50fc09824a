import { createServer, type Server } from 'node:http'
import { afterEach, describe, expect, it } from 'vitest'
import {
  checkPatroni,
  checkReplication,
  checkViewReaders,
  patroniFindings,
} from '../../../../src/auth-relay/check/check-cluster.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'

const SEEN = {
  isSuperuser: false,
  mayWrite: true,
  now: new Date(),
  synchronousCommit: 'on',
  standbyNames: '"n2"',
  statusInterval: 1,
  seesReplies: true,
  unnamedSessions: 0,
}
const settingsWith = (lines: string) => parseSettings(`[database]\n${lines}\n`, 'test.toml', {}).settings
const CLUSTER = settingsWith('require_sync = true')

describe('on an SMTP host', () => {
  const about = (settings: typeof CLUSTER, change: Partial<typeof SEEN>): readonly string[] =>
    checkReplication(settings, { ...SEEN, ...change }, { user: 'authwrap', role: 'reader' }).map(
      ({ verdict, about, text }) => `${verdict} ${about}: ${text}`,
    )

  it('the missing require_sync is found, and the reader need not commit durably', () => {
    expect(about(settingsWith(''), {})).toEqual([expect.stringMatching(/^advice database.require_sync: .* the gate /)])
    expect(about(CLUSTER, { synchronousCommit: 'off' })).toEqual([])
  })

  it('a standby_age that does not fit the interval of the standbys is found', () => {
    expect(about(CLUSTER, { statusInterval: 10 })).toEqual([expect.stringMatching(/^unsafe database.standby_age/)])
  })

  it('a mail server that reads the grants by SQL gets an advice in a cluster', () => {
    const found = (settings: typeof CLUSTER, unnamedSessions: number) =>
      checkViewReaders(settings, { ...SEEN, unnamedSessions }, 'authwrap').map(({ verdict }) => verdict)
    expect(found(CLUSTER, 1)).toEqual(['advice'])
    expect(found(CLUSTER, 0)).toEqual([])
    expect(found(settingsWith(''), 1)).toEqual([])
  })
})

describe('checkReplication', () => {
  const about = (settings: typeof CLUSTER, change: Partial<typeof SEEN>): readonly string[] =>
    checkReplication(settings, { ...SEEN, ...change }, { user: 'pop3authd', role: 'writer' }).map(
      ({ verdict, about }) => `${verdict} ${about}`,
    )

  it.each([
    [{}, []],
    [{ synchronousCommit: 'remote_apply' }, []],
    [{ synchronousCommit: 'local' }, ['advice synchronous_commit']],
    [{ synchronousCommit: 'remote_write' }, ['advice synchronous_commit']],
    [{ standbyNames: '' }, ['unsafe database.require_sync']],
    [{ seesReplies: false }, ['unsafe database.standby_age']],
    [{ statusInterval: 10 }, ['unsafe database.standby_age']],
    [{ statusInterval: 0 }, ['unsafe database.standby_age']],
  ])('with require_sync: %j', (change, findings) => {
    expect(about(CLUSTER, change)).toEqual(findings)
  })

  it('without require_sync: advice about a server that can lose commits, and about standbys that no setting requires', () => {
    const alone = settingsWith('')
    expect(about(alone, { standbyNames: '' })).toEqual([])
    expect(about(alone, { standbyNames: '', synchronousCommit: 'local' })).toEqual([])
    expect(about(alone, { standbyNames: '', synchronousCommit: 'off' })).toEqual(['advice synchronous_commit'])
    expect(about(alone, {})).toEqual(['advice database.require_sync'])
  })
})

describe('patroniFindings', () => {
  const strict = { ttl: 30, synchronous_mode: true, synchronous_mode_strict: true }
  it.each([
    ['fine', {}, '4.0.4', 3, ['fine patroni']],
    ['quorum', { synchronous_mode: 'quorum' }, '4.0.4', 3, ['fine patroni']],
    ['not strict', { synchronous_mode_strict: false }, '4.0.4', 3, ['unsafe patroni']],
    ['not synchronous', { synchronous_mode: false }, '4.0.4', 3, ['unsafe patroni']],
    ['a limit beyond ttl', {}, '4.0.4', 31, ['unsafe database.standby_age']],
    ['a limit beyond half of ttl', {}, '4.0.4', 16, ['unsafe database.standby_age']],
    ['no limit', {}, '4.0.4', 0, ['unsafe database.standby_age']],
    ["Debian 12's release", {}, '3.0.2', 3, ['advice patroni']],
    ['the release with the fix', {}, '3.1.0', 3, ['fine patroni']],
  ])('%s', (_, change, version, standbyAge, findings) => {
    const found = patroniFindings({ standby_age: standbyAge }, { config: { ...strict, ...change }, version })
    expect(found.map(({ verdict, about }) => `${verdict} ${about}`)).toEqual(findings)
  })
})

describe('checkPatroni', () => {
  let server: Server | undefined
  afterEach(() => void server?.close())

  it('queries one host after the other, and reports when no host answers', async () => {
    server = createServer((request, response) => {
      const answer = request.url === '/config' ? { ttl: 20, synchronous_mode: true } : { patroni: { version: '4.0.4' } }
      response.end(JSON.stringify(answer))
    })
    await new Promise<void>(resolve => server?.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    const lines = `require_sync = true\ndbhost = "127.0.0.2,127.0.0.1"\npatroni_port = ${address.port}`
    expect(await checkPatroni(settingsWith(lines))).toMatchObject([{ verdict: 'unsafe', about: 'patroni' }])
    server.close()
    server.closeAllConnections()
    expect(await checkPatroni(settingsWith(lines))).toMatchObject([
      { verdict: 'advice', about: 'database.patroni_port' },
    ])
    expect(await checkPatroni(settingsWith('require_sync = true\npatroni_port = 0'))).toEqual([])
    expect(await checkPatroni(settingsWith(''))).toEqual([])
  })
})
