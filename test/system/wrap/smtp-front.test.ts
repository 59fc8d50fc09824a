import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Device, DeviceAdmin } from '../../../src/grants/devices/device-admin.ts'
import { eventually } from '../../harness/eventually.ts'
import { GateDatabase } from '../../harness/postgres/gate-database.ts'
import { run } from '../../harness/processes/program.ts'
import { command, describeWith, type Need, ROOT } from '../../harness/runner/describe-with.ts'
import { FRONT_SERVERS } from '../../harness/smtp/front-servers.ts'
import { SmtpConversation } from '../../harness/smtp/smtp-conversation.ts'
import { Stack } from '../../harness/stack.ts'

/** Octets from the notation of the front's dialogues: `/` is CRLF, `\n \r \0` are single octets. */
const octets = (text: string): string =>
  text.replaceAll('/', '\r\n').replaceAll('\\n', '\n').replaceAll('\\r', '\r').replaceAll('\\0', '\0')

const B = 'MAIL FROM:<scan@example.org>/'
const R = 'RCPT TO:<u@example.org>/'
const D = 'DATA/'
const E = 'RCPT TO:<x@evil.test>/'
const X = 'MAIL FROM:<ceo@example.org>/'
/** Follows a form that ends a message at some servers: a second message with a forged sender. */
const SECOND = `${X}${R}${D}/forged/./`

/** Content that servers read differently; in the last one the first header line decides at Exim. */
const SMUGGLING = [
  ...['\\n.\\n', '\\n./', '/.\\n', '/\\n.\\n', '/.\\n/', '\\n.\\r', '\\r.\\n', '/.\\r', '\\r.\\r', '\\r./', '/\\r./'],
  ...['/.\\r/', '\\r/.\\r/', '/\\0./', '/.\\0/'],
].map(form => `Subject: head//body${form}${SECOND}`)
SMUGGLING.push(`Subject: head\\n\\nbody\\n.\\n${SECOND}`, `.\\n${SECOND}`)
/** Content that every server accepts as content. */
const HARMLESS = [
  'Subject: head//a/../b/./',
  'Subject: head//a/. /b/./',
  `Subject: head//${'x'.repeat(16_384)}././.X/./`,
]

type Dialogue = {
  readonly name: string
  /** Groups of commands; the client waits for the replies between two groups. */
  readonly client: readonly string[]
  /**
   * Codes for each group, separated by commas; `?` is the server's reply to MAIL during a
   * transaction.
   */
  readonly replies: string
  /** The server's side has ended. */
  readonly end?: true
  /** The session begins with the banner, not with EHLO. */
  readonly noHello?: true
  readonly messages?: number
  /** The client shuts down its side after the last group. */
  readonly shut?: true
}
const DIALOGUES: readonly Dialogue[] = [
  { name: 'plain', client: [B, R, D, '/hi/./', 'QUIT/'], replies: '250 250 354 250 221', messages: 1, end: true },
  { name: 'batch', client: [B + R + D, '/hi/./QUIT/'], replies: '250,250,354 250,221', messages: 1, end: true },
  {
    name: 'two messages',
    client: [B, R, D, `/1/./${B}${R}${D}`, '/2/./'],
    replies: '250 250 354 250,250,250,354 250',
    messages: 2,
  },
  { name: 'early data', client: [`${B}${R}${D}/hi/./`], replies: '250,250,354,250', messages: 1 },
  { name: 'early data, no recipient', client: [`${B}${D}RSET/`], replies: '250,5..', end: true },
  { name: 'sender', client: [X, R, D, 'RSET/', B], replies: '550 503 503 250 250' },
  { name: 'sender, batch', client: [X + R + D], replies: '550,503,503' },
  { name: 'nested', client: [B, R, X, R, D], replies: '250 250 550 503 503' },
  { name: 'middle refused', client: [B + R + E + R + D, '/hi/./'], replies: '250,250,550,250,354 250', messages: 1 },
  { name: 'all refused', client: [B + E + D, 'RSET/', B, R, D], replies: '250,550,554 250 250 250 354' },
  { name: 'no RSET', client: [B, E, D, B], replies: '250 550 554 ?' },
  { name: 'hidden', client: ['STARTTLS/XCLIENT ADDR=127.0.0.1/ETRN x/EXPN root/'], replies: '502,502,502,502' },
  { name: 'BDAT', client: [B, R, 'BDAT 6 LAST/QUIT/NOOP/'], replies: '250 250 502', end: true },
  { name: 'half-close', client: [`${B}${R}QUIT/`], replies: '250,250,221', end: true, shut: true },
  { name: 'HELO', client: ['HELO/', 'HELO my_copier/', B], replies: '250 250 250', noHello: true },
  { name: 'LF commands', client: [B, R, D].map(line => line.replace('/', '\\n')), replies: '250 250 354' },
  {
    name: 'canonical',
    client: ['mail from: scan@example.org size=9/', 'RCPT  TO: u@example.org/'],
    replies: '250 250',
  },
  { name: 'two addresses', client: [B, 'RCPT TO:u@example.org <x@evil.test>/'], replies: '250 501' },
]

const COPIER: Device = {
  name: 'copier-2',
  logins: ['copier2@example.org'],
  senders: ['scan@example.org'],
  networks: [],
  places: [],
  recipientDomains: ['example.org'],
  messagesPerHour: 0,
  messagesPerDay: 0,
  recipientsPerHour: 0,
  recipientsPerDay: 0,
  lineEndings: 'strict',
  hours: null,
  until: null,
  owner: 'ann',
  note: '',
}

const PHP_MAILER: Need = {
  name: 'PHPMailer',
  remedy: 'apt-get install php-cli libphp-phpmailer',
  isThere: () => command('php').isThere(),
}
/** Sends one message; the exit status shows whether the server accepted it. */
const PHP = `<?php
require 'libphp-phpmailer/autoload.php';
[, $port, $from] = $argv;
$mail = new PHPMailer\\PHPMailer\\PHPMailer();
$mail->isSMTP();
$mail->Host = '127.0.0.1';
$mail->Port = (int) $port;
$mail->SMTPAutoTLS = true;
$mail->setFrom($from);
$mail->addAddress('u@example.org');
$mail->Subject = 'scan';
$mail->Body = ".\\nfrom PHPMailer\\n";
if (!$mail->send()) { fwrite(STDERR, $mail->ErrorInfo . "\\n"); exit(1); }
`

describeWith([ROOT, command('swaks'), command('msmtp'), PHP_MAILER], 'the front and the server', () => {
  let stack: Stack
  let grants: GateDatabase
  let admin: DeviceAdmin
  let homes = 0

  beforeAll(async () => {
    stack = new Stack()
    grants = await GateDatabase.create()
    admin = new DeviceAdmin(grants.database.open('pop3authd'))
    await admin.store(COPIER, true)
    writeFileSync(`${stack.directory}/send.php`, PHP)
  })
  afterEach(() => stack.stopPrograms())
  afterAll(async () => {
    await stack.stop()
    await grants.remove()
  })

  for (const server of FRONT_SERVERS)
    describeWith(server.needs, server.name, () => {
      let home: string
      let port: number

      /** A gate in front of the server, with an empty queue, and a grant for the copier. */
      const start = async (device: Partial<Device> = {}): Promise<void> => {
        homes += 1
        home = `${stack.directory}/server${homes}`
        mkdirSync(home)
        chmodSync(home, 0o755)
        await admin.store({ ...COPIER, ...device }, false)
        await grants.grant('127.0.0.1', 'copier2@example.org')
        const { user, password } = grants.database.connection('pop3authd')
        stack.configure({
          ...grants.settings,
          database: { ...grants.settings['database'], dbuser: user, dbpass: password?.reveal() ?? '' },
          wrap: {
            listen: ['127.0.0.1:0'],
            smtpd: [...server.prepare(home)],
            smtpd_user: '',
            front: true,
            sender_binding: 'refuse',
          },
        })
        await stack.start('wrap')
        port = stack.port('wrap')
      }
      const senders = (): readonly string[] => server.messages(home).map(({ sender }) => sender)
      /** Every started smtpd has ended, so that all accepted messages are in the queue. */
      const untilEnded = (): Promise<unknown> =>
        eventually(
          'every smtpd has ended',
          () => {
            const events = stack.log('wrap').map(({ fields }) => fields['event'])
            return (
              events.includes('relay_allowed') &&
              events.filter(event => event === 'relay_allowed').length ===
                events.filter(event => event === 'smtpd_ended').length
            )
          },
          60_000,
        )
      /** The codes that a client receives; each group is answered before the next one is sent. */
      const talk = async ({ client, replies, noHello, end, shut }: Dialogue): Promise<void> => {
        const socket = connect(port, '127.0.0.1')
        const smtp = SmtpConversation.over(socket)
        await smtp.expectSmtp(/^220/)
        if (noHello !== true) {
          smtp.say('EHLO c')
          const greeting = (await smtp.expectSmtp(/^250/)).join(' ')
          expect(greeting).not.toMatch(/STARTTLS|CHUNKING|ETRN|EXPN|XCLIENT|PIPECONNECT/)
        }
        const answers = replies.replace('?', String(server.secondMail)).split(' ')
        for (const [index, group] of client.entries()) {
          smtp.write(octets(group))
          if (index === client.length - 1 && shut === true) socket.end()
          for (const code of answers[index]?.split(',') ?? []) await smtp.expectSmtp(new RegExp(`^${code}`))
        }
        if (end === true) await smtp.expectEnd()
        smtp.close()
      }
      const send = (content: string, replies: string, end?: true): Promise<void> =>
        talk({ name: content, client: [B, R, D, content], replies: `250 250 354 ${replies}`, ...(end && { end }) })

      test('every form of smuggling is refused, and the server accepts no message', async () => {
        await start()
        await Promise.all(SMUGGLING.map(content => send(content, '550', true)))
        await untilEnded()
        expect(senders()).toEqual([])
        await Promise.all(HARMLESS.map(content => send(content, '250')))
        await untilEnded()
        expect(senders()).toEqual(HARMLESS.map(() => 'scan@example.org'))
      })

      test('with repaired line ends each form is one message', async () => {
        await start({ lineEndings: 'repair' })
        await Promise.all(SMUGGLING.map(content => send(content, '250')))
        await untilEnded()
        expect(senders()).toEqual(SMUGGLING.map(() => 'scan@example.org'))
        for (const { content } of server.messages(home)) if (content !== '') expect(content).toContain('forged')
      })

      test('the dialogues', async () => {
        await start()
        for (const dialogue of DIALOGUES) {
          const before = senders().length
          await talk(dialogue).catch((error: unknown) => {
            throw new Error(`${dialogue.name}: ${error instanceof Error ? error.message : String(error)}`)
          })
          await untilEnded()
          expect([dialogue.name, senders().length - before]).toEqual([dialogue.name, dialogue.messages ?? 0])
        }
        expect(new Set(senders())).toEqual(new Set(['scan@example.org']))
      })

      test('swaks, msmtp and PHPMailer', async () => {
        await start()
        const message = 'Subject: scan\n\n.\nfrom msmtp\n'
        const clients = (from: string) => [
          run(['swaks', '--server', '127.0.0.1', '--port', `${port}`, '--from', from, '--to', 'u@example.org']),
          run(['msmtp', '--host=127.0.0.1', `--port=${port}`, '--tls=off', `--from=${from}`, 'u@example.org'], {
            input: message,
          }),
          run(['php', `${stack.directory}/send.php`, `${port}`, from]),
        ]
        for (const client of await Promise.all(clients('scan@example.org')))
          expect(client.ending, client.transcript()).toMatchObject({ code: 0 })
        await untilEnded()
        expect(senders()).toEqual(Array(3).fill('scan@example.org'))
        for (const client of await Promise.all(clients('ceo@example.org'))) {
          expect(client.ending?.code, client.transcript()).not.toBe(0)
          expect(client.transcript()).toContain('set its sender to scan@example.org')
        }
        await untilEnded()
        expect(senders()).toHaveLength(3)
      })

      test('a scanner: HELO without a valid name, AUTH LOGIN again and again, no brackets, no QUIT', async () => {
        await start()
        const socket = connect(port, '127.0.0.1')
        const smtp = SmtpConversation.over(socket)
        await smtp.expectSmtp(/^220/)
        for (const hello of ['HELO ', 'HELO my_copier']) {
          smtp.say(hello)
          await smtp.expectSmtp(/^250/)
        }
        for (let attempt = 0; attempt < 2; attempt += 1) {
          smtp.say('AUTH LOGIN')
          await smtp.expectSmtp(/^50\d/)
        }
        for (const [line, code] of [
          ['MAIL FROM: scan@example.org', /^250/],
          ['RCPT TO: u@example.org', /^250/],
          ['DATA', /^354/],
        ] as const) {
          smtp.say(line)
          await smtp.expectSmtp(code)
        }
        smtp.write('Subject: scan\r\n\r\n..page 1\r\n.\r\n')
        await smtp.expectSmtp(/^250/)
        socket.destroy()
        await untilEnded()
        expect(senders()).toEqual(['scan@example.org'])
        await stack.waitForLog('wrap', { event: 'hello_replaced' })
        await stack.waitForLog('wrap', { event: 'auth_refused' })
        const events = stack.log('wrap').map(({ fields }) => fields['event'])
        for (const once of ['hello_replaced', 'auth_refused'])
          expect(events.filter(event => event === once)).toEqual([once])
      })

      test('a block ends the relay of an open session at its next MAIL', async () => {
        await start()
        const smtp = SmtpConversation.over(connect(port, '127.0.0.1'))
        await smtp.expectSmtp(/^220/)
        smtp.say('EHLO c')
        await smtp.expectSmtp(/^250/)
        const mail = async (...answers: readonly RegExp[]): Promise<void> => {
          for (const [index, line] of [B, R, D, 'Subject: scan//page/./'].entries()) {
            const answer = answers[index]
            if (answer === undefined) return
            smtp.write(octets(line))
            await smtp.expectSmtp(answer)
          }
        }
        await mail(/^250/, /^250/, /^354/, /^250/)
        const command = (...words: readonly string[]) => stack.run('auth-relay', [...words, '--config', stack.config])
        const blocked = await command('block', 'copier2@example.org', '--for', '1h')
        expect(blocked.ending?.code, blocked.transcript()).toBe(0)
        await mail(/^450 4\.7\.1 open the mailbox by POP3 again, then send/, /^503/)
        await stack.waitForLog('wrap', { event: 'mail_refused', reason: 'expired', sender: 'scan@example.org' })
        // The block ends and the mailbox is opened again, so the same session may send.
        const unblocked = await command('unblock', 'copier2@example.org')
        expect(unblocked.ending?.code, unblocked.transcript()).toBe(0)
        await mail(/^450/)
        await grants.grant('127.0.0.1', 'copier2@example.org')
        await mail(/^250/, /^250/, /^354/, /^250/)
        smtp.close()
        await untilEnded()
        expect(senders()).toEqual(['scan@example.org', 'scan@example.org'])
      })
    })
})
