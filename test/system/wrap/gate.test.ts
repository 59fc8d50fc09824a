import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from 'vitest'
import { LineSplitter } from '../../../src/wire/lines.ts'
import { formatPolicyRequest } from '../../../src/wire/services/policy.ts'
import { formatNetstring, NetstringReader } from '../../../src/wire/services/socketmap.ts'
import {
  MAX_RELAY_TALLY_LINE,
  parseRelayTally,
  RELAY_VERDICTS,
  type RelayTally,
  type RelayVerdict,
} from '../../../src/wire/usage-event.ts'
import { eventually } from '../../harness/eventually.ts'
import { GateDatabase } from '../../harness/postgres/gate-database.ts'
import { Conversation } from '../../harness/processes/conversation.ts'
import { type Program, run } from '../../harness/processes/program.ts'
import { command, describeWith } from '../../harness/runner/describe-with.ts'
import { swaksCommand } from '../../harness/smtp/swaks.ts'
import { Stack, TEST_IDS, type TestSettings } from '../../harness/stack.ts'

describeWith(
  [command('swaks'), command('tcprulescheck', 'ucspi-tcp'), command('tcprules', 'ucspi-tcp')],
  'the resident gate',
  () => {
    let stack: Stack
    let grants: GateDatabase

    beforeAll(async () => {
      stack = new Stack()
      grants = await GateDatabase.create()
    })
    afterEach(async () => {
      await stack.stopPrograms()
      await grants.database.owner.script('DELETE FROM grants')
    })
    afterAll(async () => {
      await stack.stop()
      await grants.remove()
    })

    const start = async (wrap: TestSettings[string], others: TestSettings = {}): Promise<Program> => {
      stack.configure({ '': { log_level: 'debug' }, ...grants.settings, ...others, wrap: { ...wrap } })
      const gate = await stack.start('wrap')
      await stack.waitForEngine('wrap', 'wrap.engine')
      return gate
    }
    const mail = (to: string) => run(swaksCommand(stack.port('wrap'), to))
    const code = (program: Program) =>
      program.lines.flatMap(line => /^<(?:-|\*\*) +(\d{3}) /.exec(line)?.[1] ?? []).at(-2)
    /** Sends a text to a socket of the gate and returns the output when `enough` accepts it. */
    const ask = (path: string, text: string, enough: (received: string) => boolean): Promise<string> =>
      new Promise((resolve, reject) => {
        let received = ''
        const socket = connect({ path }, () => socket.write(text))
        socket.on('data', piece => {
          received += String(piece)
          if (!enough(received)) return
          socket.destroy()
          resolve(received)
        })
        socket.on('error', reject).on('close', () => resolve(received))
      })

    /**
     * A double of authd: reads the gate's reports of its decisions, and adds up the counts of a
     * service.
     */
    async function receiveTallies(): Promise<ReadonlyMap<string, RelayTally['counts'] & { recent: string[] }>> {
      const received = new Map<string, Record<RelayVerdict, number> & { recent: string[] }>()
      const splitter = new LineSplitter(MAX_RELAY_TALLY_LINE)
      const server = createServer(socket =>
        socket.on('data', chunk => {
          for (const line of splitter.push(chunk).lines) {
            const tally = parseRelayTally(line)
            if (tally === undefined) continue
            const sum = received.get(tally.service) ?? { relayed: 0, refused: 0, undecided: 0, never: 0, recent: [] }
            for (const verdict of RELAY_VERDICTS) sum[verdict] += tally.counts[verdict]
            sum.recent.push(...tally.recent)
            received.set(tally.service, sum)
          }
        }),
      )
      const path = `${stack.directory}/run/usage.sock`
      server.listen({ path, writableAll: true })
      await once(server, 'listening')
      onTestFinished(() => void server.close())
      return received
    }

    test('every service reports its decisions: counts, and a few of the refused addresses', async () => {
      const tallies = await receiveTallies()
      const [policy, socketmap, query] = ['policy', 'socketmap', 'query'].map(
        name => `${stack.directory}/run/${name}-tally.sock`,
      )
      await start({
        listen: ['127.0.0.1:0'],
        policy_listen: [`unix:${policy}`],
        socketmap_listen: [`unix:${socketmap}`],
        query_listen: [`unix:${query}`],
      })
      await grants.grant('127.0.0.1', 'ann')
      expect(code(await mail('b@elsewhere.example'))).toBe('250')
      const request = { request: 'smtpd_access_policy', client_address: '192.0.2.9' }
      await ask(policy ?? '', formatPolicyRequest(new Map(Object.entries(request))), text => text.endsWith('\n\n'))
      const keys = ['relay 127.0.0.1', 'relay 192.0.2.8', 'relay 192.0.2.8', 'relay host.example.org']
      await ask(socketmap ?? '', keys.map(formatNetstring).join(''), text => text.split(',').length > keys.length)
      await ask(query ?? '', 'relay v=1 ip=2001:db8::7\nnonsense\n', text => text.split('\n').length > 2)
      await eventually('the reports of four services arrive', () => tallies.size === 4)
      const none = { relayed: 0, refused: 0, undecided: 0, never: 0, recent: [] }
      expect(Object.fromEntries(tallies)).toEqual({
        gate: { ...none, relayed: 1 },
        policy: { ...none, refused: 1, recent: ['192.0.2.9'] },
        socketmap: { ...none, relayed: 1, refused: 2, recent: ['192.0.2.8'] },
        query: { ...none, refused: 1, recent: ['2001:db8::7'] },
      })
    })

    test('a real client is refused, relays with a grant, and is refused when the grant is deleted', async () => {
      await start({ listen: ['127.0.0.1:0'] })
      expect(code(await mail('b@elsewhere.example'))).toBe('553')
      await grants.grant('127.0.0.1', 'ann')
      expect(code(await mail('b@elsewhere.example'))).toBe('250')
      await stack.waitForLog('wrap', { event: 'relay_allowed', ip: '127.0.0.1', user: 'ann' })
      await grants.delete('127.0.0.1')
      expect(code(await mail('b@elsewhere.example'))).toBe('553')
    })

    test('the same over IPv6', async () => {
      await start({ listen: ['[::1]:0'] })
      const recipient = async (): Promise<string> => {
        const client = new Conversation('client by ::1', connect(stack.port('wrap'), '::1'))
        await client.expect(/^220 /)
        await client.ask('MAIL FROM:<a@example.org>', /^250 /)
        const { text } = await client.ask('RCPT TO:<b@elsewhere.example>', /^\d{3} /)
        await client.ask('QUIT', /^221 /)
        return text.slice(0, 3)
      }
      expect(await recipient()).toBe('553')
      await grants.grant('::1', 'ann')
      expect(await recipient()).toBe('250')
      await grants.delete('::1')
      expect(await recipient()).toBe('553')
    })

    test('local mail is accepted within the deadline while the database is unavailable', async () => {
      await grants.grant('127.0.0.1', 'ann')
      const tallies = await receiveTallies()
      await start(
        { listen: ['127.0.0.1:0'], wrap_timeout: 1 },
        { database: { ...grants.settings['database'], dbhost: '127.0.0.1', dbport: 1 } },
      )
      expect(code(await mail('bob@example.org'))).toBe('250')
      expect(code(await mail('bob@elsewhere.example'))).toBe('553')
      await stack.waitForLog('wrap', { event: 'decision_failed', relay: '0' })
      await eventually('both decisions are counted as undecided', () => tallies.get('gate')?.undecided === 2)
      expect(tallies.get('gate')).toMatchObject({ relayed: 0, refused: 0, recent: [] })
    })

    test('rblsmtpd and fixcrio in front of the smtpd, with rules of tcprules', async () => {
      const cdb = `${stack.directory}/chain.cdb`
      const rules = '127.0.0.1:allow,RBLSMTPD=""\n127.0.0.2:allow,RBLSMTPD="-listed"\n127.0.0.3:deny\n'
      await run(['tcprules', cdb, `${cdb}.tmp`], { input: rules })
      await start({
        listen: ['127.0.0.1:0'],
        rules: cdb,
        smtpd: ['rblsmtpd', 'fixcrio', `${stack.directory}/smtpd.sh`, 'example.org'],
      })
      const from = (localAddress: string) => {
        const client = connect({ port: stack.port('wrap'), host: '127.0.0.1', localAddress })
        onTestFinished(() => void client.destroy())
        return new Conversation(localAddress, client)
      }
      const friend = from('127.0.0.1')
      await friend.expect(/^220 mx/)
      // Without fixcrio the smtpd would take the last letter of a line for its CR.
      friend.write('MAIL FROM:<a@example.org>\nRCPT TO:<b@example.org>\nRCPT TO:<b@elsewhere.example>\nQUIT\n')
      for (const answer of [/^250 /, /^250 /, /^553 /, /^221 /]) await friend.expect(answer)
      const listed = from('127.0.0.2')
      await listed.expect(/^220 rblsmtpd/)
      await listed.ask('MAIL FROM:<a@example.org>', /^250 /)
      await listed.ask('RCPT TO:<b@example.org>', /^553 listed/)
      await listed.ask('QUIT', /^221 /)
      await expect(from('127.0.0.3').expect(/^/)).rejects.toThrow('the connection was closed')
      await stack.waitForLog('wrap', { event: 'client_denied', ip: '127.0.0.3' })
    })

    test('SIGHUP: new settings apply from the next connection on, open sessions continue, and invalid settings change nothing', async () => {
      const smtpd = `${stack.directory}/banner.sh`
      const script = 'echo "220 $1 $(env | grep ^RELAYCLIENT= || echo closed) ip=$TCPREMOTEIP"; read a; echo "221 $a"'
      writeFileSync(smtpd, `#!/bin/sh\n${script}\n`, { mode: 0o755 })
      const socket = `${stack.directory}/run/policy-reload.sock`
      const grantsOf = { ...grants.settings['grants'] }
      const first = { listen: ['127.0.0.1:0'], policy_listen: [`unix:${socket}`], smtpd: [smtpd, 'first'] }
      await grants.grant('127.0.0.1', 'ann')
      await grants.grant('192.0.2.7', 'ann')
      const program = await start(first)
      const port = stack.port('wrap')
      let reloads = 0
      const renew = async (wrap: TestSettings[string], others: TestSettings = {}): Promise<void> => {
        stack.configure({ ...grants.settings, ...others, wrap: { ...first, ...wrap } })
        program.signal('SIGHUP')
        reloads += 1
        await program.waitFor(
          `reload ${reloads}`,
          () => program.lines.filter(line => /event=(settings_reloaded|reload_failed) ?/.test(line)).length >= reloads,
        )
      }
      const connection = (line?: string) => {
        const socket = connect(port, '127.0.0.1')
        onTestFinished(() => void socket.destroy())
        const client = new Conversation('client', socket)
        if (line !== undefined) client.say(line)
        return client
      }
      const banner = async (line?: string): Promise<string> => {
        const client = connection(line)
        const { text } = await client.expect(/^\d{3} /)
        client.say('bye')
        return text
      }
      const request = formatPolicyRequest(
        new Map([
          ['request', 'smtpd_access_policy'],
          ['protocol_state', 'RCPT'],
          ['client_address', '127.0.0.1'],
          ['sender', 'ann@example.org'],
          ['recipient', 'b@elsewhere.example'],
        ]),
      )
      const postfix = connect({ path: socket })
      let received = ''
      postfix.on('data', piece => {
        received += String(piece)
      })
      const answers = async (count: number): Promise<string[]> => {
        postfix.write(request)
        return eventually('answered', () => {
          const all = received.split('\n\n').slice(0, -1)
          return all.length === count && all
        })
      }

      const session = connection()
      await session.expect(/^220 first RELAYCLIENT= ip=127\.0\.0\.1/)
      expect(await answers(1)).toEqual(['action=OK'])

      await renew({
        smtpd: [smtpd, 'second'],
        relayclient_value: '@fixme',
        max_per_address: 2,
        recipients_per_address: 1,
      })
      const second = connection()
      await second.expect(/^220 second RELAYCLIENT=@fixme /)
      expect(await banner()).toMatch(/^421 .*from your address/)
      await second.ask('bye', /^221 bye/)
      await session.ask('still there', /^221 still there/)
      expect((await answers(2)).at(-1)).toBe('action=OK')
      expect((await answers(3)).at(-1)).toMatch(/^action=450 /)
      postfix.destroy()

      const proxied = 'PROXY TCP4 192.0.2.7 192.0.2.1 5025 25'
      await renew({ proxy_trust: ['127.0.0.1'], socket_mode: '0600' })
      expect(await banner(proxied)).toBe('220 first RELAYCLIENT= ip=192.0.2.7')
      await renew({ proxy_trust: ['127.0.0.1'] }, { grants: { ...grantsOf, never_grant: ['192.0.2.0/24'] } })
      expect(await banner(proxied)).toBe('220 first closed ip=192.0.2.7')
      await stack.waitForLog('wrap', { event: 'settings_reloaded', restart_for: 'wrap.socket_mode' })
      await renew({}, { database: { ...grants.settings['database'], wrap_dbpass: 'not the password' } })
      expect(await banner()).toMatch(/^220 first closed /)
      await renew({ relayclient_value: '@renewed' })
      expect(await banner()).toMatch(/^220 first RELAYCLIENT=@renewed /)
      await renew({ smtpd: ['/nonexistent/smtpd'], relayclient_value: '@broken' })
      await stack.waitForLog('wrap', { event: 'reload_failed', reason: /^\/nonexistent\/smtpd is not a program/ })
      expect(await banner()).toMatch(/^220 first RELAYCLIENT=@renewed /)
    })

    test('SIGTERM: the gate accepts no more connections, and ends when the last smtpd has ended', async () => {
      const program = await start({ listen: ['127.0.0.1:0'] })
      const port = stack.port('wrap')
      const client = connect(port, '127.0.0.1')
      await new Promise(resolve => client.once('data', resolve))
      program.signal('SIGTERM')
      await eventually(
        'refused',
        () =>
          new Promise<boolean>(resolve => {
            const probe = connect(port, '127.0.0.1', () => resolve(false))
            probe.once('error', () => resolve(true)).once('connect', () => probe.destroy())
          }),
      )
      const quit = new Promise<string>(resolve => client.once('data', piece => resolve(String(piece))))
      client.write('QUIT\r\n')
      expect(await quit).toContain('221 ')
      expect((await program.ended).code).toBe(0)
    })

    test('Postfix policy service: OK only for a positive answer, in order, and DUNNO for every fault', async () => {
      const path = `${stack.directory}/run/gate/policy.sock` // the gate makes the directory
      await start({ policy_listen: [`unix:${path}`], sender_binding: 'refuse', recipients_per_address: 3 })
      await grants.grant('192.0.2.7', 'ann@example.org')
      const requestOf = (client_address: string, sender: string, instance = 'x') =>
        formatPolicyRequest(
          new Map([
            ['request', 'smtpd_access_policy'],
            ['protocol_state', 'RCPT'],
            ['client_address', client_address],
            ['sender', sender],
            ['recipient', 'b@elsewhere.example'],
            ['instance', instance],
          ]),
        )
      const requests = [
        requestOf('192.0.2.7', 'ann@example.org'),
        requestOf('192.0.2.8', 'ann@example.org'),
        requestOf('unknown', 'ann@example.org'),
        requestOf('192.0.2.7', 'boss@example.org'),
        requestOf('192.0.2.7', ''),
        requestOf('192.0.2.7', 'ann+lists@example.org'),
        requestOf('192.0.2.7', 'ann@example.org'),
      ]
      const answers = await ask(path, requests.join(''), received => received.split('\n\n').length > requests.length)
      expect(answers.split('\n\n').slice(0, -1)).toEqual([
        'action=OK',
        'action=DUNNO',
        'action=DUNNO',
        'action=550 5.7.1 sender address does not belong to the mailbox opened from here',
        'action=OK',
        'action=OK',
        'action=450 4.7.1 too much mail within an hour, try again later',
      ])
      await grants.database.owner.script('ALTER VIEW relay_gate RENAME TO relay_gate_away')
      try {
        expect(await ask(path, requestOf('192.0.2.7', 'ann@example.org'), received => received.endsWith('\n\n'))).toBe(
          'action=DUNNO\n\n',
        )
      } finally {
        await grants.database.owner.script('ALTER VIEW relay_gate_away RENAME TO relay_gate')
      }
      expect(await ask(path, 'GET / HTTP/1.0\r\n\r\n\n\n', () => false)).toBe('')
    })

    test('only the group may connect; if all may, the queries of a foreign account are not counted', async () => {
      const path = `${stack.directory}/run/policy-group.sock`
      const fields = {
        request: 'smtpd_access_policy',
        protocol_state: 'RCPT',
        client_address: '192.0.2.7',
        sender: 'ann@example.org',
        recipient: 'b@elsewhere.example',
      }
      const request = formatPolicyRequest(new Map(Object.entries(fields)))
      /** The answers to queries of an account of the host, all of them on one connection. */
      const requestAs = async (uid: number, gid: number, count: number): Promise<string> => {
        const script = `const s = require('net').connect(${JSON.stringify(path)}); let received = ''
          s.on('connect', () => s.end(${JSON.stringify(request)}.repeat(${count})))
          s.on('data', d => received += d).on('error', e => received += e.code).on('close', () => process.stdout.write(received))`
        const { stdout } = spawnSync(process.execPath, ['-e', script], { uid, gid, cwd: '/', encoding: 'utf8' })
        return stdout.trim().split(/\n+/).join(' ')
      }
      const foreign = 61_250
      const mailServer = 61_251
      const group = 61_252
      const wrap = {
        policy_listen: [`unix:${path}`],
        socket_group: `${group}`,
        policy_users: [`${mailServer}`, 'an account that this host does not have'],
        messages_per_login: 2,
      }
      await grants.grant('192.0.2.7', 'ann@example.org')
      await start(wrap)
      expect(await requestAs(foreign, foreign, 1)).toBe('EACCES')
      expect(await requestAs(foreign, group, 3)).toBe('action=OK action=OK action=OK')
      expect(await requestAs(mailServer, group, 3)).toMatch(/^action=OK action=OK action=450 /)
      await stack.stopPrograms()

      await start({ ...wrap, socket_mode: '0666' })
      expect(await requestAs(foreign, foreign, 3)).toBe('action=OK action=OK action=OK')
      expect(await requestAs(0, 0, 3)).toMatch(/^action=OK action=OK action=450 /)
    })

    test('socketmap for Postfix and sendmail', async () => {
      const path = `${stack.directory}/run/socketmap.sock`
      await start({ socketmap_listen: [`unix:${path}`] })
      await grants.grant('192.0.2.7', 'ann')
      await grants.grant('2001:db8::7', 'ann')
      const keys = [
        'relay 192.0.2.7',
        'relay 192.0.2',
        'relay host.example.org',
        'relay 2001:db8::7',
        'relay [192.0.2.7]',
        'access connect:192.0.2.7',
        'access Connect:[192.0.2.7]',
        'access Connect:IPv6:2001:db8:0:0:0:0:0:7',
        'access Connect:[IPv6:2001:db8::7]',
        // In a lookup of sendmail these may be the rest of 2001:db8::7:9 or of ::ffff:192.0.2.7.
        'access Connect:IPv6:2001:db8::7',
        'access Connect:2001:db8::7',
        'access Connect:IPv6:2001:db8:0:0:0:0:7',
        'access Connect:IPv6:0:0:0:0:0:ffff:192.0.2.7',
        // The domain of a sender or a recipient.
        'access 192.0.2.7',
        'access [192.0.2.7]',
        'access To:192.0.2.7',
        'access Connect:192.0.2',
        'relay 192.0.2.8',
        'other x',
      ]
      const received = await ask(path, keys.map(formatNetstring).join(''), text => text.split(',').length > keys.length)
      expect(new NetstringReader(1000).push(Buffer.from(received))).toEqual([
        'OK OK',
        'NOTFOUND ',
        'NOTFOUND ',
        'OK OK',
        'NOTFOUND ',
        'OK RELAY',
        'OK RELAY',
        'OK RELAY',
        'OK RELAY',
        'NOTFOUND ',
        'NOTFOUND ',
        'NOTFOUND ',
        'NOTFOUND ',
        'NOTFOUND ',
        'NOTFOUND ',
        'NOTFOUND ',
        'NOTFOUND ',
        'NOTFOUND ',
        expect.stringMatching(/^PERM /),
      ])
    })

    test('tcprules cdb: tcprulescheck finds the rules of the site, and each grant until it ends or is deleted', async () => {
      const directory = `${stack.directory}/cdb`
      mkdirSync(directory)
      chownSync(directory, TEST_IDS.gate, TEST_IDS.gate)
      const cdb = `${directory}/tcp.smtp.cdb`
      const rules = `${stack.directory}/tcp.smtp`
      writeFileSync(rules, '127.:allow,RELAYCLIENT="",X="site"\n192.0.2.:allow,RBLSMTPD=""\n203.0.113.:deny\n:allow\n')
      await start({ tcprules_cdb: cdb, tcprules_static: rules, tcprules_interval: 60_000 })
      const check = async (ip: string) =>
        (await run(['tcprulescheck', cdb], { env: { TCPREMOTEIP: ip } })).lines.join('\n')
      // Without a grant the file has the same records that tcprules makes from the site's rules.
      await run(['tcprules', `${cdb}.reference`, `${cdb}.tmp`], { input: readFileSync(rules, 'utf8') })
      for (const ip of ['127.0.0.1', '192.0.2.7', '203.0.113.9', '198.51.100.1'])
        expect(await check(ip)).toBe(
          (await run(['tcprulescheck', `${cdb}.reference`], { env: { TCPREMOTEIP: ip } })).lines.join('\n'),
        )
      await grants.grant('192.0.2.7', 'ann@example.org')
      await grants.grant('203.0.113.9', 'eve')
      await grants.grant('198.51.100.1', 'bob', 2)
      await eventually('written', async () => (await check('192.0.2.7')).includes('RELAYCLIENT='))
      expect(await check('192.0.2.7')).toMatch(
        /rule 192\.0\.2\.7:\n[\s\S]*AUTHRELAY_LOGIN=ann@example\.org\n[\s\S]*RBLSMTPD=\nallow connection$/,
      )
      expect(await check('203.0.113.9')).toContain('deny connection')
      await eventually('the second grant ended', async () => !(await check('198.51.100.1')).includes('RELAYCLIENT='))
      await grants.delete('192.0.2.7')
      await eventually('revoked', async () => !(await check('192.0.2.7')).includes('RELAYCLIENT='))
    })
  },
)
