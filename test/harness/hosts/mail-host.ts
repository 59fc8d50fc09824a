import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import { eventually } from '../eventually.ts'
import { Program, run } from '../processes/program.ts'
import { type RecipientAnswer, SmtpConversation } from '../smtp/smtp-conversation.ts'
import { DebianMachine, type Release } from './debian-machine.ts'
import { type NetworkNamespace, TestNetwork } from './network-namespace.ts'

const SERVER = '192.0.2.1'
const SERVER_V6 = '2001:db8::1'
/** The mail server to which the host relays mail for other domains. */
const NEXT_HOP = '192.0.2.2'
const STRANGER = 'somebody@elsewhere.example'
/** A recipient of the host's own domain. */
const OWN = 'ann@machine.example'

/** A booted Debian with a mailbox of `ann`, and a second host with the addresses of its clients. */
export class MailHost {
  readonly machine: DebianMachine
  readonly #network: TestNetwork
  readonly #client: NetworkNamespace
  readonly #nextHop: Program
  #clients = 10

  private constructor(machine: DebianMachine, network: TestNetwork, client: NetworkNamespace, nextHop: Program) {
    this.machine = machine
    this.#network = network
    this.#client = client
    this.#nextHop = nextHop
  }

  static async boot(release: Release): Promise<MailHost> {
    const network = new TestNetwork(SERVER, SERVER_V6)
    try {
      const client = network.client('192.0.2.7', '2001:db8::7')
      const machine = await DebianMachine.boot(network.server, release)
      await machine.sh(MAKE_ANN)
      client.addAddress(NEXT_HOP)
      const nextHop = new Program('next hop', [process.execPath, '-e', RECEIVE], { prefix: client.prefix })
      await nextHop.waitForLine(/^listening$/)
      return new MailHost(machine, network, client, nextHop)
    } catch (error) {
      network.remove()
      throw error
    }
  }

  async stop(): Promise<void> {
    await this.#nextHop.stop()
    await this.machine.stop()
    this.#network.remove()
  }

  /** The newest lines of the journal. */
  journal(): Promise<string> {
    return this.machine.answer('journalctl', '--no-pager', '-o', 'short', '-n', '60')
  }

  addAddress(address: string): void {
    this.#client.addAddress(address)
  }

  /** An address of the client network that no client has used yet. */
  newAddress(): string {
    this.#clients += 1
    const address = `192.0.2.${this.#clients}`
    this.#client.addAddress(address)
    return address
  }

  /** The mail server's reply to a recipient, by default one of another domain. */
  async recipientFrom(from: string, recipient = STRANGER): Promise<number> {
    const host = from.includes(':') ? SERVER_V6 : SERVER
    const smtp = SmtpConversation.over(this.#client.connect({ host, port: 25, from }))
    const { code } = await smtp.askFor(recipient)
    await smtp.quit()
    return code
  }

  /** As `recipientFrom`, for a recipient of the host's own domain. */
  localRecipientFrom(from: string): Promise<number> {
    return this.recipientFrom(from, OWN)
  }

  /** The mail server's answer to a mail of this sender. */
  async mailFrom(from: string, sender: string, recipient: string): Promise<RecipientAnswer> {
    const smtp = SmtpConversation.over(this.#client.connect({ host: SERVER, port: 25, from }))
    const answer = await smtp.askFor(recipient, sender)
    await smtp.quit()
    return answer
  }

  /** Opens a mailbox, by default that of ann; true if the server accepted the login. */
  async opensMailbox(from: string, scheme: 'pop3' | 'pop3s', account = 'ann:sesame'): Promise<boolean> {
    const host = from.includes(':') ? `[${SERVER_V6}]` : SERVER
    const words = ['curl', '-s', '-k', '-m', '20', '--interface', from, `${scheme}://${host}/`, '-u', account]
    return (await run(words, { prefix: this.#client.prefix })).ending?.code === 0
  }

  /** Sends a mail to another domain; returns its subject. */
  async #sendsMail(from: string): Promise<string> {
    const host = from.includes(':') ? SERVER_V6 : SERVER
    const smtp = SmtpConversation.over(this.#client.connect({ host, port: 25, from }))
    expect((await smtp.askFor(STRANGER)).code).toBe(250)
    const subject = randomUUID()
    await smtp.sendMessage(subject)
    await smtp.quit()
    return subject
  }

  /**
   * Checks POP before SMTP: the relay is closed, a mailbox is opened, and the relay is open for
   * that address alone. Mail for local users is always accepted. A mail arrives at the next server,
   * unless a program that stores no mail replaces the mail server.
   */
  async opensRelay(
    from: string,
    scheme: 'pop3' | 'pop3s',
    { storesMail = true }: { readonly storesMail?: boolean } = {},
  ): Promise<void> {
    expect(await this.recipientFrom(from)).toBeGreaterThanOrEqual(500)
    expect(await this.localRecipientFrom(from)).toBe(250)
    await eventually('the mailbox can be opened', () => this.opensMailbox(from, scheme))
    await eventually(`${from} may relay`, async () => (await this.recipientFrom(from)) === 250)
    expect(await this.machine.must('auth-relay', 'explain', from)).toContain(`Mail from ${from} is relayed.`)
    expect(await this.recipientFrom('192.0.2.7')).toBeGreaterThanOrEqual(500)
    const subject = await this.#sendsMail(from)
    if (storesMail) await this.#nextHop.waitForLine(new RegExp(`^Subject: ${subject}$`), 60_000)
  }
}

/** A mail server that accepts every message and prints its subject. */
const RECEIVE = `require('node:net').createServer(socket => {
  let isMessage = false
  socket.write('220 next.example ESMTP\\r\\n')
  const lines = require('node:readline').createInterface(socket)
  // A mail server that restarts may reset its connection.
  for (const stream of [socket, lines]) stream.on('error', () => {})
  lines.on('line', line => {
    if (isMessage) {
      if (line.startsWith('Subject: ')) console.log(line)
      isMessage = line !== '.'
      if (!isMessage) socket.write('250 stored\\r\\n')
      return
    }
    isMessage = /^DATA$/i.test(line)
    if (/^QUIT$/i.test(line)) socket.end('221 next.example\\r\\n')
    else socket.write(isMessage ? '354 go ahead\\r\\n' : '250 next.example\\r\\n')
  })
}).listen(25, '${NEXT_HOP}', () => console.log('listening'))`

/** Postfix of a host with a mail domain, with the next server for other domains. */
export const POSTFIX_SITE = `
  postconf -e inet_interfaces=all 'mydestination=machine.example localhost' 'mynetworks=127.0.0.0/8 [::1]/128' 'relayhost=[${NEXT_HOP}]'`

const MAKE_ANN = `useradd --create-home --shell /bin/sh ann
  echo ann:sesame | chpasswd
  mkdir -p /home/ann/Maildir/new /home/ann/Maildir/cur /home/ann/Maildir/tmp
  printf 'Subject: hello\\n\\nAt noon?\\n' > /home/ann/Maildir/new/1700000000.M1.mx
  chown -R ann: /home/ann`

/**
 * Dovecot as Debian configures it, with maildirs. It accepts passwords in clear text, because the
 * proxy on the same host sends them.
 */
export const dovecotMaildirs = (release: Release): string =>
  release === 'bookworm'
    ? 'mail_location = maildir:~/Maildir\ndisable_plaintext_auth = no\n'
    : 'mail_driver = maildir\nmail_path = ~/Maildir\nmail_inbox_path = ~/Maildir\nauth_allow_cleartext = yes\n'

/** Debian's Exim as the mail server of a host, with the next server for other domains. */
export const EXIM_SITE = `sed -i "s/^dc_eximconfig_configtype=.*/dc_eximconfig_configtype='smarthost'/
    s/^dc_smarthost=.*/dc_smarthost='${NEXT_HOP}'/
    s/^dc_local_interfaces=.*/dc_local_interfaces=''/
    s/^dc_other_hostnames=.*/dc_other_hostnames='machine.example'/" /etc/exim4/update-exim4.conf.conf`

/**
 * Inserts the lines of /var/tmp/acl at the place that INSTALL names: directly before the rule that
 * refuses to relay.
 */
export const EXIM_INSERT_ACL = `
  awk 'held != "" && /relay not permitted/ { while ((getline line < "/var/tmp/acl") > 0) print "  " line; found = 1 }
    held != "" { print held; held = "" }
    /^ *require$/ { held = $0; next }
    { print }
    END { exit !found }' /etc/exim4/exim4.conf.template > /var/tmp/template
  cp /var/tmp/template /etc/exim4/exim4.conf.template`
