import type { Clock } from '../daemon/clock.ts'
import { HourlyRate } from './hourly-rate.ts'

/** Most of something within an hour; 0: no limit. */
export type PolicyLimits = {
  readonly messages_per_login: number
  readonly messages_per_address: number
  readonly recipients_per_login: number
  readonly recipients_per_address: number
}

/** What the policy door counts. New limits apply to what is counted already. */
export class PolicyRates {
  readonly messagesPerLogin: HourlyRate
  readonly messagesPerAddress: HourlyRate
  readonly recipientsPerLogin: HourlyRate
  readonly recipientsPerAddress: HourlyRate

  constructor(limits: PolicyLimits, clock: Clock) {
    this.messagesPerLogin = new HourlyRate(limits.messages_per_login, clock)
    this.messagesPerAddress = new HourlyRate(limits.messages_per_address, clock)
    this.recipientsPerLogin = new HourlyRate(limits.recipients_per_login, clock)
    this.recipientsPerAddress = new HourlyRate(limits.recipients_per_address, clock)
  }

  limit(limits: PolicyLimits): void {
    this.messagesPerLogin.limit = limits.messages_per_login
    this.messagesPerAddress.limit = limits.messages_per_address
    this.recipientsPerLogin.limit = limits.recipients_per_login
    this.recipientsPerAddress.limit = limits.recipients_per_address
  }
}
