/**
 * Dialects of POP3 servers whose versions log the address and the login in two lines, or in one.
 */

import type { Dialect } from '../dialect.ts'
import { readParts } from '../syslog-line.ts'

const POPA3D_LOGIN = /^Authentication passed for (\S{1,255}) -- \[([0-9A-Fa-f:.]{2,45})\]$/
const POPA3D_SESSION = /^Session from (.{0,255})$/
const POPA3D_SUCCESS = /^Authentication passed for (\S{1,255})$/
const POPA3D_FAILURE = /^(?:Authentication failed for |Didn't attempt authentication)/

/**
 * popa3d: address and login in two lines, joined by PID. With a common patch they are in one line
 * (spec/syslog.md §7).
 */
export const popa3d: Dialect = {
  name: 'popa3d',
  setting: 'check_daemon_popa3d',
  tags: ['popa3d'],
  doc: 'popa3d (facility daemon); joins two lines by PID, the weakest form',
  longestLogin: 255,
  read(message) {
    const whole = readParts(POPA3D_LOGIN, message)
    if (whole !== undefined) {
      const [, login, address] = whole
      return { kind: 'login', address, login }
    }
    const session = readParts(POPA3D_SESSION, message)
    if (session !== undefined) return { kind: 'session', address: session[1] }
    const success = readParts(POPA3D_SUCCESS, message)
    if (success !== undefined) return { kind: 'success', login: success[1] }
    return POPA3D_FAILURE.test(message) ? { kind: 'failure' } : undefined
  },
}

const SOLID_TAGS = ['solid-pop3d', 'spop3d']
const SOLID_LOGIN =
  /^(?:mapped )?user (\S{1,40}) authenticated( through APOP)? - (?:[A-Za-z0-9.-]{1,255} \(([0-9A-Fa-f:.]{2,45})\)|([0-9A-Fa-f:.]{2,45}))$/
const SOLID_SESSION = /^connect from (?:[A-Za-z0-9.-]{1,255} \(([0-9A-Fa-f:.]{2,45})\)|(.{0,300}))$/
const SOLID_SUCCESS = /^(?:mapped )?user (\S{1,40}) authenticated( through APOP)?$/
const SOLID_FAILURE = /^(?:authentication failed|session ended)/

/** solid-pop3d built with log-extend: one line with the address (spec/syslog.md §7). */
export const solidPop3d: Dialect = {
  name: 'solid-pop3d',
  setting: 'check_daemon_solid',
  tags: SOLID_TAGS,
  doc: 'solid-pop3d built with log-extend',
  longestLogin: 40,
  read(message) {
    const parts = readParts(SOLID_LOGIN, message)
    if (parts === undefined) return undefined
    const [, login, apop, named, bare] = parts
    return { kind: 'login', address: named + bare, login, method: apop === '' ? 'pass' : 'apop' }
  },
}

/** solid-pop3d without log-extend: address and login in two lines, joined by PID. */
export const solidPop3dTwoLines: Dialect = {
  name: 'solid-pop3d-two-lines',
  setting: 'check_daemon_solid_two_lines',
  tags: SOLID_TAGS,
  doc: 'solid-pop3d without log-extend; joins two lines by PID, the weakest form',
  longestLogin: 40,
  read(message) {
    const session = readParts(SOLID_SESSION, message)
    if (session !== undefined) return { kind: 'session', address: session[1] + session[2] }
    const success = readParts(SOLID_SUCCESS, message)
    if (success !== undefined) {
      const [, login, apop] = success
      return { kind: 'success', login, method: apop === '' ? 'pass' : 'apop' }
    }
    return SOLID_FAILURE.test(message) ? { kind: 'failure' } : undefined
  },
}

const VM_TAGS = ['vm-pop3d']
const VM_USER = String.raw`(?:'([^\s']{1,255})'(?: of '([^\s']{1,255})')?|([^\s']{1,255}))`
const VM_LOGIN = new RegExp(`^User ${VM_USER} logged in from ([0-9A-Fa-f:.]{2,45})$`)
const VM_SESSION = /^Connect from (.{0,255})$/
const VM_SUCCESS = new RegExp(`^User ${VM_USER} logged in$`)
const VM_FAILURE = /^User .* - .*auth/

/** vm-pop3d, the variant that logs one line (spec/syslog.md §7). */
export const vmPop3d: Dialect = {
  name: 'vm-pop3d',
  setting: 'check_daemon_vm_pop3d',
  tags: VM_TAGS,
  doc: 'vm-pop3d, the variant that logs login and address in one line',
  longestLogin: 255,
  read(message) {
    const parts = readParts(VM_LOGIN, message)
    if (parts === undefined) return undefined
    const [, quoted, domain, bare, address] = parts
    return { kind: 'login', address, login: fullName(quoted + bare, domain) }
  },
}

/** vm-pop3d-cc: address and login in two lines, joined by PID. */
export const vmPop3dTwoLines: Dialect = {
  name: 'vm-pop3d-two-lines',
  setting: 'check_daemon_vm_pop3d_two_lines',
  tags: VM_TAGS,
  doc: 'older vm-pop3d; joins two lines by PID, the weakest form',
  longestLogin: 255,
  read(message) {
    const session = readParts(VM_SESSION, message)
    if (session !== undefined) return { kind: 'session', address: session[1] }
    const success = readParts(VM_SUCCESS, message)
    if (success !== undefined) {
      const [, quoted, domain, bare] = success
      return { kind: 'success', login: fullName(quoted + bare, domain) }
    }
    return VM_FAILURE.test(message) ? { kind: 'failure' } : undefined
  },
}

const fullName = (name: string, domain: string): string => (domain === '' ? name : `${name}@${domain}`)
