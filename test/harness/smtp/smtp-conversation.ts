import type { Socket } from 'node:net'
import { Conversation } from '../processes/conversation.ts'

/**
 * The reply of an SMTP server to a recipient, and the time of the command (milliseconds of
 * performance.now).
 */
export type RecipientAnswer = { readonly code: number; readonly text: string; readonly sentAt: number }

/** An SMTP client that sends exactly the lines of the test. */
export class SmtpConversation extends Conversation {
  static over(socket: Socket, name = 'smtp'): SmtpConversation {
    return new SmtpConversation(name, socket)
  }

  /** Banner, HELO, MAIL, RCPT; returns the reply to RCPT with any code. */
  async askFor(recipient: string, sender = 'ann@example.org'): Promise<RecipientAnswer> {
    await this.expectSmtp(/^220/)
    this.say('HELO client.example.net')
    await this.expectSmtp(/^250/)
    this.say(`MAIL FROM:<${sender}>`)
    await this.expectSmtp(/^250/)
    const sentAt = this.say(`RCPT TO:<${recipient}>`)
    const [text = ''] = await this.expectSmtp(/^\d{3}/)
    return { code: Number(text.slice(0, 3)), text, sentAt: sentAt }
  }

  /** Sends a message to the recipients that the server accepted; the server must accept it. */
  async sendMessage(subject: string): Promise<void> {
    this.say('DATA')
    await this.expectSmtp(/^354/)
    this.write(`From: <ann@example.org>\r\nSubject: ${subject}\r\n\r\nAt noon?\r\n.\r\n`)
    await this.expectSmtp(/^250/)
  }

  async quit(): Promise<void> {
    this.say('QUIT')
    await this.expectSmtp(/^221/)
    this.close()
  }
}
