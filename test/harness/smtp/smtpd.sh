#!/bin/sh
# smtpd.sh DOMAIN: a double of qmail-smtpd on descriptors 0 and 1. With RELAYCLIENT, even if it is
# empty, it accepts every recipient. Without it, it accepts only DOMAIN and answers 553 to all
# others. It does not store messages.
reply() { printf '%s\r\n' "$1"; }
domain=$1
data=no
reply "220 mx.example.org ESMTP ${TCPREMOTEIP:-unknown}${TCPREMOTEHOST:+ $TCPREMOTEHOST}"
while IFS= read -r line; do
  line=${line%?}
  if [ $data = yes ]; then
    [ "$line" = . ] && data=no && reply '250 ok'
    continue
  fi
  case $line in
    [Ee][Hh][Ll][Oo]*) reply 250-mx.example.org; reply '250 8BITMIME' ;;
    [Hh][Ee][Ll][Oo]*) reply '250 mx.example.org' ;;
    [Mm][Aa][Ii][Ll]*) reply '250 ok' ;;
    [Rr][Cc][Pp][Tt]*)
      if [ -n "${RELAYCLIENT+set}" ]; then reply '250 ok'
      else
        case $line in
          *"@$domain>"*) reply '250 ok' ;;
          *) reply "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)" ;;
        esac
      fi ;;
    [Dd][Aa][Tt][Aa]*) data=yes; reply '354 go ahead' ;;
    [Qq][Uu][Ii][Tt]*) reply '221 mx.example.org'; exit 0 ;;
    *) reply '250 ok' ;;
  esac
done
