import type { Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { Conversation, type ReceivedLine } from '../processes/conversation.ts'

/** A POP3 client that sends exactly the lines of the test. */
export class Pop3Conversation extends Conversation {
  /**
   * A dialogue over a connected socket. With `tls` it begins with a handshake and accepts any
   * certificate, because the tests make their own certificates.
   */
  static over(socket: Socket, { tls = false, name = 'pop3' } = {}): Pop3Conversation {
    return new Pop3Conversation(
      name,
      tls ? connectTls({ socket, rejectUnauthorized: false, ALPNProtocols: ['pop3'] }) : socket,
    )
  }

  /** Greeting, USER, PASS; returns the `+OK` after the password, with the time at which it came. */
  async login(user: string, password: string): Promise<ReceivedLine> {
    await this.expect(/^\+OK /)
    await this.ask(`USER ${user}`, /^\+OK/)
    return this.ask(`PASS ${password}`, /^\+OK/)
  }

  async quit(): Promise<void> {
    await this.ask('QUIT', /^\+OK/)
    await this.expectEnd()
    this.close()
  }
}
