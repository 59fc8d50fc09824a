import { spawnSync } from 'node:child_process'
import type { Settings } from '../../settings/settings.ts'

/** What the settings give something to do. */
export type PartsInUse = {
  readonly popup: boolean
  readonly sslwrap: boolean
  /** authd hears of logins: from popup, or from a log. */
  readonly authd: boolean
  readonly gate: boolean
  readonly statusPage: boolean
}

/**
 * The parts that the settings use. Without listeners of its own sslwrap stands on *:995 before
 * popup, unless popup speaks TLS itself.
 */
export function partsInUse({ popup, sslwrap, authd, wrap, statusPage }: Settings): PartsInUse {
  const servesTls = popup.tls_listen.length > 0
  const servesPop3 = servesTls || popup.listen.length > 0 || popup.proxy_listen.length > 0
  const readsLogs =
    authd.syslog_fifo !== '' || authd.syslog_listen.length > 0 || authd.follow_files.length > 0 || authd.journal
  const services = [wrap.listen, wrap.policy_listen, wrap.socketmap_listen, wrap.question_listen]
  return {
    popup: servesPop3,
    sslwrap: (servesPop3 && !servesTls) || sslwrap.listener.length > 0,
    authd: servesPop3 || readsLogs,
    gate: services.some(addresses => addresses.length > 0) || wrap.tcprules_cdb !== '',
    statusPage: statusPage.listen !== undefined,
  }
}

/**
 * The same on this host: sslwrap, which no setting switches off, is not in use where the
 * administrator has enabled other units
 * of the package and left its unit out.
 */
export function partsInUseHere(settings: Settings, isEnabled = enabledUnit): PartsInUse {
  const parts = partsInUse(settings)
  if (!parts.sslwrap || settings.sslwrap.listener.length > 0) return parts
  const leftOut =
    isEnabled('auth-relay-sslwrap.service') === false &&
    ['authd', 'popup', 'wrap'].some(name => isEnabled(`auth-relay-${name}.service`) === true)
  return leftOut ? { ...parts, sslwrap: false } : parts
}

/** Whether systemd starts a unit with the host; undefined: there is no such unit, or no systemd. */
function enabledUnit(unit: string): boolean | undefined {
  const { stdout } = spawnSync('systemctl', ['is-enabled', unit], { encoding: 'utf8', timeout: 5000 })
  const word = stdout?.trim()
  return word === 'enabled' ? true : word === 'disabled' ? false : undefined
}
