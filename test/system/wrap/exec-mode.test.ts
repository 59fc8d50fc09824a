import { chmodSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { installBlock, installText } from '../../harness/hosts/install-recipe.ts'
import { GateDatabase } from '../../harness/postgres/gate-database.ts'
import { Program, run } from '../../harness/processes/program.ts'
import { command, describeWith } from '../../harness/runner/describe-with.ts'
import { swaksCommand } from '../../harness/smtp/swaks.ts'
import { Stack } from '../../harness/stack.ts'

const root = new URL('../../..', import.meta.url).pathname
/** The command with which the launcher starts the program. */
const WRAP = [process.execPath, `${root}dist/wrap.cjs`]
const QUIET = { QMAILDIR: '/nonexistent' }

describeWith([command('tcpserver', 'ucspi-tcp'), command('swaks')], 'wrap in place of qmail-smtpd', () => {
  let stack: Stack
  let grants: GateDatabase
  let show: string
  let slow: Server
  let slowPort: number

  beforeAll(async () => {
    stack = new Stack()
    grants = await GateDatabase.create()
    show = `${stack.directory}/show`
    const line =
      // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell's, not ours
      'echo "$0 $* relay=${RELAYCLIENT-unset} login=${AUTHRELAY_LOGIN-} until=${AUTHRELAY_UNTIL-} pass=${WRAP_DBPASS-}"'
    writeFileSync(show, `#!/bin/sh\n${line}\n`)
    chmodSync(show, 0o755)
    // A server that accepts connections and never sends anything, like a database that hangs.
    slow = createServer(socket => socket.on('error', () => {}))
    await new Promise<void>(resolve => slow.listen(0, '127.0.0.1', resolve))
    const address = slow.address()
    slowPort = address !== null && typeof address === 'object' ? address.port : 0
  })
  afterAll(async () => {
    slow.close()
    await stack.stop()
    await grants.remove()
  })
  beforeEach(async () => {
    await grants.delete('192.0.2.7')
    await grants.delete('127.0.0.1')
  })

  const wrap = (env: Record<string, string | undefined>, ...args: string[]) =>
    run([...WRAP, ...(args.length === 0 ? [show, 'a', 'b'] : args)], {
      env: { ...QUIET, ...grants.environment, TCPREMOTEIP: '192.0.2.7', PROTO: 'TCP', ...env },
    })
  const shown = (program: Program) =>
    program.lines.find(line => !line.startsWith('wrap: ') && line.includes(' relay=')) ?? ''
  const logged = (program: Program) => program.log.filter(line => line.program === 'wrap').map(line => line.fields)

  test('an address with a grant relays, and the smtpd gets the login but no password of the database', async () => {
    await grants.grant('192.0.2.7', 'ann@example.org')
    const program = await wrap({})
    expect(shown(program)).toMatch(/ a b relay= login=ann@example\.org until=\d{10} pass=$/)
    expect(logged(program)).toEqual([
      {
        level: 'info',
        event: 'relay_allowed',
        ip: '192.0.2.7',
        user: 'ann@example.org',
        until: expect.stringMatching(/^\d+$/),
      },
    ])
    expect(program.ending).toEqual({ code: 0, signal: null })
  })

  test('IPv6, and IPv4 in the form of an IPv6 server', async () => {
    await grants.grant('2001:db8::7', 'ann')
    await grants.grant('192.0.2.7', 'bob')
    expect(shown(await wrap({ TCPREMOTEIP: '2001:db8:0::7', PROTO: 'TCP6' }))).toContain('relay= login=ann')
    expect(shown(await wrap({ TCPREMOTEIP: '::ffff:192.0.2.7' }))).toContain('relay= login=bob')
  })

  test('an unknown address, and addresses whose grant has ended or was deleted, do not relay', async () => {
    expect(shown(await wrap({}))).toContain('relay=unset login= ')
    await grants.grant('192.0.2.7', 'ann', -1)
    expect(shown(await wrap({}))).toContain('relay=unset')
    await grants.grant('192.0.2.7', 'ann')
    expect(shown(await wrap({}))).toContain('relay= ')
    await grants.delete('192.0.2.7')
    expect(shown(await wrap({}))).toContain('relay=unset')
  })

  test('an existing RELAYCLIENT is not changed, and its value is configurable', async () => {
    await grants.grant('192.0.2.7', 'ann')
    const preset = await wrap({ RELAYCLIENT: '@site' })
    expect(shown(preset)).toContain('relay=@site login= ')
    expect(logged(preset)).toEqual([{ level: 'info', event: 'relay_allowed', ip: '192.0.2.7', reason: 'preset' }])
    expect(shown(await wrap({ RELAYCLIENT_VALUE: '@fixme' }))).toContain('relay=@fixme ')
  })

  test.each<[string, Record<string, string | undefined>]>([
    ['database down', { DBHOST: '127.0.0.1', DBPORT: '1' }],
    ['database that never answers', { DBHOST: '127.0.0.1', DBPORT: 'SLOW', WRAP_TIMEOUT: '1' }],
    ['wrong password', { WRAP_DBPASS: 'wrong' }],
    ['no such role', { WRAP_DBUSER: 'nobody_of_that_name' }],
    ['table missing', { DBNAME: 'postgres' }],
    ['database missing', { DBNAME: 'nonexistent' }],
    ['invalid setting', { WRAP_TIMEOUT: 'soon' }],
    ['gate that does not run', { WRAP_ASK: 'unix:/nonexistent/ask.sock' }],
  ])('%s: the smtpd runs without RELAYCLIENT, and one line gives the reason', async (_what, env) => {
    await grants.grant('192.0.2.7', 'ann')
    const program = await wrap({ ...env, ...(env['DBPORT'] === 'SLOW' ? { DBPORT: String(slowPort) } : {}) })
    expect(shown(program)).toContain('relay=unset login= ')
    expect(program.ending?.code).toBe(0)
    expect(logged(program)).toHaveLength(1)
    expect(logged(program)[0]).toMatchObject({ level: 'error', event: 'decision_failed', relay: '0' })
  })

  test('unreadable settings: the smtpd runs nevertheless', async () => {
    const broken = stack.secret('broken.toml', 'this is = = no TOML')
    const program = await wrap({}, '--config', broken, show, 'x')
    expect(shown(program)).toContain(' x relay=unset ')
    expect(logged(program)).toHaveLength(1)
    const missing = await wrap({}, '--config', '/nonexistent.toml', show)
    expect(shown(missing)).toContain('relay=unset ')
  })

  test.each([
    ['', 'no_address'],
    ['192.0.2', 'no_address'],
    ["192.0.2.7'; DROP TABLE grants", 'no_address'],
    ['224.0.0.1', 'never'],
    ['0.0.0.0', 'never'],
    ['fe80::1', 'never'],
  ])('TCPREMOTEIP=%j: no relay (%s)', async (text, reason) => {
    const program = await wrap({ TCPREMOTEIP: text })
    expect(shown(program)).toContain('relay=unset ')
    expect(logged(program)).toMatchObject([{ event: 'relay_refused', reason }])
  })

  test('loopback is ungrantable unless grant_loopback permits it', async () => {
    await grants.grant('127.0.0.1', 'ann')
    const program = await wrap({ TCPREMOTEIP: '127.0.0.1', GRANT_LOOPBACK: '0' })
    expect(shown(program)).toContain('relay=unset ')
    expect(logged(program)).toMatchObject([{ event: 'relay_refused', reason: 'loopback' }])
  })

  test.each([
    ['192.0.2.7', { WRAP_PROXY_TRUST: '192.0.2.7' }, 'proxy'],
    ['::ffff:192.0.2.7', { PROXY_TRUST: '192.0.2.0/24' }, 'proxy'],
    ['64:ff9b::192.0.2.7', { SSL_HACK_TRUST: '192.0.2.7' }, 'proxy'],
    ['192.0.2.7', { NEVER_GRANT: '192.0.2.0/24' }, 'never'],
  ])('a row for %s opens nothing when the settings have %j', async (text, env, reason) => {
    for (const ip of ['192.0.2.7', '64:ff9b::192.0.2.7']) await grants.grant(ip, 'ann')
    const program = await wrap({ TCPREMOTEIP: text, ...env })
    expect(shown(program)).toContain('relay=unset ')
    expect(logged(program)).toMatchObject([{ event: 'relay_refused', reason }])
  })

  test('installed as qmail-smtpd it runs the real one under its second name', async () => {
    const qmail = `${stack.directory}/qmail`
    await run(['mkdir', '-p', `${qmail}/bin`])
    symlinkSync(show, `${qmail}/bin/qmail-smtpd`)
    const recipe = { section: 'qmail and notqmail', language: 'sh', marker: 'mv qmail-smtpd' }
    const places = { '/var/qmail': qmail, '/usr/lib/auth-relay/bin/wrap': `${root}bin/wrap` }
    expect((await run(['sh', '-ec', installBlock(recipe, places)])).ending?.code).toBe(0)
    await grants.grant('192.0.2.7', 'ann')
    const program = await run([`${qmail}/bin/qmail-smtpd`, 'arg'], {
      env: { ...grants.environment, QMAILDIR: qmail, TCPREMOTEIP: '192.0.2.7' },
    })
    expect(shown(program)).toMatch(/ arg relay= login=ann/)
  })

  test('a gate that would run itself refuses to start', async () => {
    const qmail = `${stack.directory}/loop`
    await run(['mkdir', '-p', `${qmail}/bin`])
    symlinkSync(`${root}bin/wrap`, `${qmail}/bin/qmail-smtpd`)
    const program = await run([`${qmail}/bin/qmail-smtpd`], {
      env: { QMAILDIR: qmail, QMAIL_SMTPD_NOAUTH: 'qmail-smtpd', TCPREMOTEIP: '192.0.2.7', RELAYCLIENT: '' },
    })
    expect(program.lines).toContain('421 unable to run smtpd (#4.3.0)')
    expect(program.ending?.code).toBe(111)
  })

  test('no smtpd to run: 421 to the client, 111 to the supervisor', async () => {
    const program = await wrap({}, '/nonexistent/smtpd')
    expect(program.lines).toContain('421 unable to run smtpd (#4.3.0)')
    expect(program.ending?.code).toBe(111)
    expect(logged(program)).toMatchObject([{ event: 'smtpd_start_failed' }])
  })

  test('wrong usage is one line and status 100', async () => {
    const program = await run([...WRAP, '--bogus'])
    expect(program.ending?.code).toBe(100)
    expect(program.lines.filter(line => line.startsWith('wrap: '))).toHaveLength(1)
  })

  test('the resident gate answers in place of the database', async () => {
    await grants.grant('192.0.2.7', 'ann@example.org')
    const socket = `${stack.directory}/run/query.sock`
    stack.configure({ ...grants.settings, wrap: { query_listen: [`unix:${socket}`] } })
    await stack.start('wrap')
    const gateAlone = { WRAP_ASK: `unix:${socket}`, DBHOST: '127.0.0.1', DBPORT: '1' }
    expect(shown(await wrap(gateAlone))).toMatch(/relay= login=ann@example\.org until=\d{10}/)
    expect(shown(await wrap({ ...gateAlone, TCPREMOTEIP: '192.0.2.8' }))).toContain('relay=unset ')
    await stack.stopPrograms()
  })

  test.each([
    ['tcpserver -v 0 10101 wrap smtpd'],
    // To try the gate beside an existing qmail-smtpd.
    [installText('qmail and notqmail', /`(tcpserver [^`]* 10101 wrap[^`]*)`/)],
  ])('with `%s` a real client relays after the login, not before', async line => {
    const smtpd = `${stack.directory}/qmail-smtpd`
    writeFileSync(smtpd, `#!/bin/sh\nexec sh ${stack.directory}/smtpd.sh example.org\n`, { mode: 0o755 })
    const words = line
      .replace('-v 0 10101', '-vHRl mx.example.org 127.0.0.1 0')
      .split(' ')
      .flatMap(word =>
        word === 'wrap' ? WRAP : /^(smtpd|\/var\/qmail\/bin\/qmail-smtpd)$/.test(word) ? [smtpd] : [word],
      )
    const server = new Program('tcpserver', words, { env: { ...grants.environment } })
    try {
      // tcpserver does not print the port that it got for port 0; the kernel's table has it.
      const inodes = await run(['sh', '-c', `ls -l /proc/${server.pid}/fd; cat /proc/net/tcp`])
      const port = await portOf(server, inodes)
      const swaks = (to: string) => run(swaksCommand(port, to))
      const printed = (program: Program, pattern: RegExp) => program.lines.some(line => pattern.test(line))
      const refused = await swaks('bob@elsewhere.example')
      expect(printed(refused, /^<\*\* 553 /), `${refused.transcript()}\n${server.transcript()}`).toBe(true)
      expect(printed(await swaks('bob@example.org'), /^<- {2}250 ok/)).toBe(true)
      await grants.grant('127.0.0.1', 'ann')
      expect((await swaks('bob@elsewhere.example')).ending?.code).toBe(0)
      await grants.delete('127.0.0.1')
      expect(printed(await swaks('bob@elsewhere.example'), /^<\*\* 553 /)).toBe(true)
    } finally {
      await server.stop()
    }
  })
})

/** The port of a listening server, found by the inode of its socket. */
async function portOf(server: Program, first: Program): Promise<number> {
  for (let program = first; ; program = await run(['sh', '-c', `ls -l /proc/${server.pid}/fd; cat /proc/net/tcp`])) {
    const inodes = program.lines.flatMap(line => /socket:\[(\d+)\]/.exec(line)?.[1] ?? [])
    for (const line of program.lines) {
      const [, local, , state, , , , , , inode] = line.trim().split(/\s+/)
      if (state === '0A' && inode !== undefined && inodes.includes(inode))
        return Number.parseInt(local?.split(':')[1] ?? '', 16)
    }
    if (server.ending !== undefined) throw new Error(server.transcript())
  }
}
